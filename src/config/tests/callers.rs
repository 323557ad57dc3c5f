//! Tests of `[server.tls]` and `[[callers]]`.

use super::*;

/// Writes valid files for `[server.tls]` and returns the section.
fn tls_files(dir: &Dir, client_ca: bool) -> String {
    tls_files_between(dir, client_ca, 2020, 2050)
}

/// Like [`tls_files`], with a certificate that is valid in these years.
fn tls_files_between(dir: &Dir, client_ca: bool, from: i32, until: i32) -> String {
    let mut params = rcgen::CertificateParams::new(["gateway.example".to_owned()]).expect("a name");
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(from, 1, 1), rcgen::date_time_ymd(until, 1, 1));
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

/// `tests/keys` has a key of each kind with its certificate, made with OpenSSL.
#[test]
fn keys_that_cannot_be_used_are_named() {
    let path = |name: &str| format!("{}/tests/keys/{name}.pem", env!("CARGO_MANIFEST_DIR"));
    let tls = |name: &str| {
        let certificate = path(if name.starts_with("encrypted") { "rsa2048_pkcs1" } else { name });
        (format!("[server.tls]\ncert_file = {certificate:?}\nkey_file = {:?}\n", path(name)), path(name))
    };
    for name in ["ed25519", "p521", "rsa2048_pkcs1", "sec1"] {
        assert!(valid(&tls(name).0, &with_credentials(&[])).server.tls.is_some(), "{name}");
    }
    let unsupported = |kind: &str| {
        format!(
            "holds a private key that cannot be used; expects RSA with 2048 to 8192 bits, EC on the named curve P-256, P-384 \
             or P-521, or Ed25519; the key of the certificate is {kind}"
        )
    };
    let encrypted = "holds an encrypted private key; decrypt it with `openssl pkey`".to_owned();
    for (name, problem_of_key) in [
        ("rsa1024", unsupported("RSA with 1024 bits")),
        ("rsa_pss", unsupported("of another kind")),
        ("p224", unsupported("EC")),
        ("secp256k1", unsupported("EC")),
        ("ed448", unsupported("of another kind")),
        ("dsa", unsupported("DSA")),
        ("encrypted", encrypted.clone()),
        ("encrypted_pkcs1", encrypted),
    ] {
        let (text, path) = tls(name);
        assert_eq!(problem(&text), format!("server.tls.key_file: {path} {problem_of_key}"), "{name}");
    }
}

#[test]
fn files_that_are_not_pem_are_named() {
    let dir = Dir::new();
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::default().self_signed(&key).expect("a certificate");
    let utf_16: Vec<u8> = format!("\u{feff}{}", certificate.pem()).encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (cert, key, found) in [
        (
            certificate.der().to_vec(),
            key.serialize_der(),
            "is binary (DER or PKCS#12); convert it to PEM with `openssl`",
        ),
        (utf_16.clone(), utf_16, "is UTF-16; save it as ASCII"),
    ] {
        let [cert, key] = [dir.file("cert", cert), dir.file("key", key)];
        let expected = [format!("server.tls.cert_file: {cert} {found}"), format!("server.tls.key_file: {key} {found}")];
        let text = format!("[server.tls]\ncert_file = {cert:?}\nkey_file = {key:?}\n");
        assert_eq!(problems(&text, &with_credentials(&[])), expected);
    }
    let openssh = dir.file("openssh", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n");
    let cert = dir.file("good", certificate.pem().replace('\n', "\r\n"));
    let found = problem(&format!("[server.tls]\ncert_file = {cert:?}\nkey_file = {openssh:?}\n"));
    assert!(found.contains("in the format of OpenSSH"), "{found}");
    let key = dir.file("good.key", key.serialize_pem().replace('\n', "\r\n"));
    assert!(
        valid(&format!("[server.tls]\ncert_file = {cert:?}\nkey_file = {key:?}\n"), &with_credentials(&[]))
            .server
            .tls
            .is_some()
    );
}

#[test]
fn certificates_that_are_not_valid_yet_warn_and_fail_a_reload() {
    let dir = Dir::new();
    let before = valid(&tls_files(&dir, false), &with_credentials(&[])).server.tls.expect("TLS");
    let config = valid(&tls_files_between(&dir, false, 2040, 2050), &with_credentials(&[]));
    assert_eq!(config.warnings, ["server.tls.cert_file: holds a certificate that is not valid yet"]);
    let expected = format!("{} holds a certificate that is not valid yet", dir.0.path().join("tls.crt").display());
    assert_eq!(before.files.read(&Clock::system()).expect_err("the certificate is not valid yet"), expected);
}

#[test]
fn expired_certificates_warn_at_startup_and_fail_a_reload() {
    let dir = Dir::new();
    let config_before = valid(&tls_files(&dir, false), &with_credentials(&[]));
    let config = valid(&tls_files_between(&dir, false, 2020, 2021), &with_credentials(&[]));
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
    for (methods, expected) in [
        ("[]", "is empty: list names of RPCs"),
        ("[\"Save\"]", "entry 0 is unknown: list names of RPCs"),
        ("[\"saveinfo\"]", "entry 0 is unknown: write it \"SaveInfo\""),
        ("[\"SaveInfo\", \"\"]", "entry 1 is unknown: list names of RPCs"),
        ("[\"READ\"]", "entry 0 is unknown: write it \"read\""),
        ("[\"Read*\"]", "entry 0 is unknown: list names of RPCs"),
    ] {
        let problem = replaced("[\"SaveInfo\"]", methods);
        assert!(problem.starts_with(&format!("callers[0].methods: {expected}")), "{problem}");
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
