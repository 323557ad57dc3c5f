//! Tests of `[server.tls]` and `[[callers]]`.

use super::*;

/// Writes valid files for `[server.tls]` and returns the section.
fn tls_files(dir: &Dir, client_ca: bool) -> String {
    tls_files_until(dir, client_ca, 2050)
}

/// Like [`tls_files`], with a certificate that is valid until `year`.
fn tls_files_until(dir: &Dir, client_ca: bool, year: i32) -> String {
    let mut params = rcgen::CertificateParams::new(["gateway.example".to_owned()]).expect("a name");
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(year, 1, 1));
    let key_pair = rcgen::KeyPair::generate().expect("a key");
    let self_signed = params.self_signed(&key_pair).expect("a certificate");
    let certificate = dir.file("tls.crt", self_signed.pem());
    let key = dir.file("tls.key", key_pair.serialize_pem());
    let client_ca = if client_ca { format!("client_ca_file = {certificate:?}\n") } else { String::new() };
    format!("[server.tls]\ncert_file = {certificate:?}\nkey_file = {key:?}\n{client_ca}")
}

const CALLER: &str = "[[callers]]\nidentity = \"Orders.Example\"\nmethods = [\"SaveInfo\"]\nprojects = [\"env\"]\n";

#[test]
fn tls_allows_remote_clients() {
    let dir = Dir::new();
    let config =
        valid(&format!("[server]\nlisten = \"0.0.0.0:1\"\n{}", tls_files(&dir, false)), &with_credentials(&[]));
    let tls = config.server.tls.expect("TLS");
    assert!(tls.material.client_ca.is_none());
    assert_eq!(tls.files.read(&Clock::system()).expect("the files are valid"), tls.material);
    assert_eq!(config.server.identity, IdentitySource::None);
    assert!(
        config.warnings.len() == 1 && config.warnings[0].starts_with("callers: is missing: without "),
        "every caller is allowed"
    );
}

/// Files that were joined without a line end, and a block that is ignored.
#[test]
fn every_block_of_tls_files_is_read_or_named() {
    let dir = Dir::new();
    let text = tls_files(&dir, true) + CALLER;
    let [certificate, key] =
        ["tls.crt", "tls.key"].map(|name| fs::read_to_string(dir.0.path().join(name)).expect(name));
    let chain = valid(&text, &with_credentials(&[])).server.tls.expect("TLS").material.certified_key.cert.len();
    assert_eq!(chain, 1);
    let openssl = certificate.replace(" CERTIFICATE-", " X509 CERTIFICATE-");
    dir.file("tls.crt", format!("\u{feff}{}{}{openssl}", certificate.trim_end(), certificate.trim_end()));
    dir.file("tls.key", format!("{}{key}", certificate.trim_end()));
    let config = valid(&text, &with_credentials(&[]));
    assert_eq!(config.server.tls.expect("TLS").material.certified_key.cert.len(), 2);
    let ignored = |warning: &&String| warning.contains("has a block X509 CERTIFICATE, which is ignored");
    assert_eq!(config.warnings.iter().filter(ignored).count(), 2, "{:?}", config.warnings);
}

#[test]
fn all_problems_of_tls_files_are_reported_at_once() {
    let dir = Dir::new();
    let bad = dir.file("bad", MARKER);
    let other = rcgen::generate_simple_self_signed(["a.b".to_owned()]).expect("a certificate");
    let text =
        format!("[server.tls]\ncert_file = {bad:?}\nkey_file = {bad:?}\nclient_ca_file = \"/nowhere/ca\"\n{CALLER}");
    let expected = [
        format!("server.tls.cert_file: {bad} holds no certificate in PEM"),
        format!("server.tls.key_file: {bad} holds no private key in PEM"),
        "server.tls.client_ca_file: /nowhere/ca cannot be read: No such file or directory (os error 2)".to_owned(),
    ];
    assert_eq!(problems(&text, &with_credentials(&[])), expected);
    let missing = "server.tls.key_file: is missing; it is the file with the certificate's private key, in PEM";
    assert_eq!(problem(&format!("[server.tls]\ncert_file = {bad:?}\n")), missing);
    let other = dir.file("other.key", other.signing_key.serialize_pem());
    let text = tls_files(&dir, false);
    let text = text.replace(&format!("{:?}", dir.0.path().join("tls.key")), &format!("{other:?}"));
    let expected = format!("server.tls.key_file: {other} holds a key that is not the one of the certificate");
    assert_eq!(problem(&text), expected);
}

#[test]
fn expired_certificates_warn_at_startup_and_fail_a_reload() {
    let dir = Dir::new();
    let config_before = valid(&tls_files(&dir, false), &with_credentials(&[]));
    let config = valid(&tls_files_until(&dir, false, 2021), &with_credentials(&[]));
    assert_eq!(config.warnings, ["server.tls.cert_file: holds a certificate that has expired"]);
    let path = dir.0.path().join("tls.crt");
    let expected = format!("{} holds a certificate that has expired", path.display());
    assert_eq!(
        config_before.server.tls.expect("TLS").files.read(&Clock::system()).expect_err("the certificate has expired"),
        expected
    );
}

#[test]
fn a_world_readable_private_key_is_a_warning() {
    let dir = Dir::new();
    let text = tls_files(&dir, false);
    fs::set_permissions(dir.0.path().join("tls.key"), fs::Permissions::from_mode(0o444)).expect("the mode is set");
    let warnings = valid(&text, &with_credentials(&[])).warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("server.tls.key_file: "), "{warnings:?}");
}

#[test]
fn callers_are_identified_by_certificate_header_or_user() {
    let dir = Dir::new();
    let config = valid(&format!("{}{CALLER}", tls_files(&dir, true)), &with_credentials(&[]));
    assert_eq!(config.server.identity, IdentitySource::ClientCertificate);
    let [caller] = config.callers.as_slice() else { panic!("{:?}", config.callers) };
    assert_eq!(caller.identity, "orders.example");
    assert_eq!(Vec::from_iter(&caller.methods), [&"huaweicloud.scm.v1.CertificateService/SaveInfo"]);
    assert_eq!(caller.projects, Some(["env".to_owned()].into()));

    let config = valid(&format!("[server]\ntrust_xfcc = true\n{CALLER}"), &with_credentials(&[]));
    assert_eq!(config.server.identity, IdentitySource::ForwardedHeader(XfccElements::One));
    let last =
        valid(&format!("[server]\ntrust_xfcc = true\nxfcc_elements = \"last\"\n{CALLER}"), &with_credentials(&[]));
    assert_eq!(last.server.identity, IdentitySource::ForwardedHeader(XfccElements::Last));
    assert!(last.warnings.is_empty(), "{:?}", last.warnings);

    let callers = CALLER.replace("Orders.Example", "uid:0").replace("[\"env\"]", "[\"*\"]");
    let config = valid(&format!("[server]\nlisten = \"unix:/x\"\n{callers}"), &with_credentials(&[]));
    assert_eq!(config.server.identity, IdentitySource::PeerUser);
    assert_eq!((config.callers[0].identity.as_str(), &config.callers[0].projects), ("uid:0", &None));

    let variables = [
        ("SCM_GATEWAY__SERVER__TRUST_XFCC", "true"),
        ("SCM_GATEWAY__CALLERS__0__IDENTITY", "spiffe://Example.org/Orders"),
        ("SCM_GATEWAY__CALLERS__0__METHODS", "SaveInfo, ReadInfo"),
        ("SCM_GATEWAY__CALLERS__0__PROJECTS", "*"),
    ];
    let config = load(None, &with_credentials(&variables)).expect("the configuration is valid");
    assert_eq!(config.callers[0].identity, "spiffe://Example.org/Orders", "a URI is kept unchanged");
    assert_eq!(config.callers[0].methods.len(), 2);
}

#[test]
fn callers_need_an_identity_source() {
    let dir = Dir::new();
    assert!(problem(CALLER).starts_with("callers: cannot be told apart: set server.tls.client_ca_file, or "));
    assert!(problem(&format!("{}{CALLER}", tls_files(&dir, false))).starts_with("callers: cannot be told apart"));
    for empty in ["", "callers = []\n"] {
        let text = format!("{empty}{}", tls_files(&dir, true));
        assert!(problem(&text).starts_with("callers: is missing; with server.tls.client_ca_file it lists"));
    }
    let warnings = valid("[server]\ntrust_xfcc = true\n", &with_credentials(&[])).warnings;
    assert!(
        warnings.len() == 1 && warnings[0].starts_with("callers: is missing; with server.trust_xfcc"),
        "{warnings:?}"
    );
    assert!(valid("[server]\nlisten = \"unix:/x\"\n", &with_credentials(&[])).warnings.is_empty());
    let warnings = valid("[server]\nxfcc_elements = \"last\"\n", &with_credentials(&[])).warnings;
    assert_eq!(warnings, ["server.xfcc_elements: has no effect without trust_xfcc = true"]);
    let elements = problem(&format!("[server]\ntrust_xfcc = true\nxfcc_elements = \"first\"\n{CALLER}"));
    assert!(elements.starts_with("server.xfcc_elements: expects \"one\", or \"last\""), "{elements}");
    let both = format!("[server]\ntrust_xfcc = true\n{}{CALLER}", tls_files(&dir, true));
    assert!(problem(&both).starts_with("server.trust_xfcc: and tls.client_ca_file are two ways"));
    let open = problem(&format!("[server]\nlisten = \"0.0.0.0:1\"\nplaintext = true\ntrust_xfcc = true\n{CALLER}"));
    assert!(open.starts_with("server.trust_xfcc: is for a sidecar on this machine"), "{open}");
}

#[test]
fn callers_that_can_never_match_are_rejected() {
    let replaced =
        |from: &str, to: &str| problem(&format!("[server]\ntrust_xfcc = true\n{}", CALLER.replace(from, to)));
    for identity in ["", "uid:1", "a b", "spiffe:", "spiffe://a b"] {
        assert!(
            replaced("Orders.Example", identity).starts_with("callers[0].identity: expects a URI such as"),
            "{identity}"
        );
    }
    let methods: Vec<_> = crate::proto::RPCS.iter().filter_map(|rpc| rpc.split('/').nth(1)).collect();
    assert_eq!(methods[..2], ["SaveInfo", "ReadInfo"]);
    let expected = format!("callers[0].methods: expects a list of methods, of {}", methods.join(", "));
    for methods in ["[]", "[\"*\"]", "[\"Save\"]", "[\"SaveInfo\", \"\"]"] {
        assert_eq!(replaced("[\"SaveInfo\"]", methods), expected, "{methods}");
    }
    for projects in ["[]", "[\"other\"]", "[\"*\", \"env\"]"] {
        let expected = "callers[0].projects: expects a list of the projects' ids, or [\"*\"] for all of them";
        assert_eq!(replaced("[\"env\"]", projects), expected, "{projects}");
    }
    assert_eq!(replaced("[\"env\"]", "\"env\""), "callers[0].projects: expects a list of texts, found a string");
    for user in ["orders.example", "uid:65534", "uid:", "uid:01", "uid:-1", "uid:+1", "spiffe://a"] {
        let text = format!("[server]\nlisten = \"unix:/x\"\n{}", CALLER.replace("Orders.Example", user));
        assert!(problem(&text).starts_with("callers[0].identity: expects the user at the other end"), "{user}");
    }
}
