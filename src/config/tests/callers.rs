//! `[server.tls]` and `[[callers]]`.

use super::*;

/// The good files of `[server.tls]`, and their lines.
fn tls_files(dir: &Dir, client_ca: bool) -> String {
    tls_files_until(dir, client_ca, 2050)
}

/// The same, good until this year.
fn tls_files_until(dir: &Dir, client_ca: bool, year: i32) -> String {
    let mut params = rcgen::CertificateParams::new(["gateway.example".to_owned()]).expect("a name");
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(year, 1, 1));
    let made_key = rcgen::KeyPair::generate().expect("a key");
    let made = params.self_signed(&made_key).expect("a certificate");
    let (certificate, key) = (dir.file("tls.crt", made.pem()), dir.file("tls.key", made_key.serialize_pem()));
    let client_ca = if client_ca { format!("client_ca_file = {certificate:?}\n") } else { String::new() };
    format!("[server.tls]\ncert_file = {certificate:?}\nkey_file = {key:?}\n{client_ca}")
}

const CALLER: &str = "[[callers]]\nidentity = \"Orders.Example\"\nmethods = [\"SaveInfo\"]\nprojects = [\"env\"]\n";

#[test]
fn tls_opens_the_listener_to_other_machines() {
    let dir = Dir::new();
    let config = good(&format!("[server]\nlisten = \"0.0.0.0:1\"\n{}", tls_files(&dir, false)), &with_key(&[]));
    let tls = config.server.tls.expect("TLS");
    assert!(tls.material.client_ca.is_none());
    assert_eq!(tls.files.read(&Clock::system()).expect("the same"), tls.material);
    assert_eq!(config.server.identity, IdentitySource::None);
    assert!(
        config.warnings.len() == 1 && config.warnings[0].starts_with("callers: is missing: without "),
        "all may call"
    );
}

#[test]
fn what_is_wrong_with_the_files_of_tls_is_named_all_at_once() {
    let dir = Dir::new();
    let (bad, made) = (dir.file("bad", MARKER), rcgen::generate_simple_self_signed(["a.b".to_owned()]).expect("one"));
    let text =
        format!("[server.tls]\ncert_file = {bad:?}\nkey_file = {bad:?}\nclient_ca_file = \"/nowhere/ca\"\n{CALLER}");
    let expected = [
        format!("server.tls.cert_file: {bad} holds no certificate in PEM"),
        format!("server.tls.key_file: {bad} holds no private key in PEM"),
        "server.tls.client_ca_file: /nowhere/ca cannot be read: No such file or directory (os error 2)".to_owned(),
    ];
    assert_eq!(problems(&text, &with_key(&[])), expected);
    let missing = "server.tls.key_file: is missing; it is the file with the certificate's private key, in PEM";
    assert_eq!(problem(&format!("[server.tls]\ncert_file = {bad:?}\n")), missing);
    let other = dir.file("other.key", made.signing_key.serialize_pem());
    let text = tls_files(&dir, false);
    let text = text.replace(&format!("{:?}", dir.0.path().join("tls.key")), &format!("{other:?}"));
    let expected = format!("server.tls.key_file: {other} holds a key that is not the one of the certificate");
    assert_eq!(problem(&text), expected);
}

#[test]
fn a_certificate_that_has_expired_is_a_warning_at_the_start_and_a_problem_when_it_comes_later() {
    let dir = Dir::new();
    let good_one = good(&tls_files(&dir, false), &with_key(&[]));
    let config = good(&tls_files_until(&dir, false, 2021), &with_key(&[]));
    assert_eq!(config.warnings, ["server.tls.cert_file: holds a certificate that has expired"]);
    let path = dir.0.path().join("tls.crt");
    let expected = format!("{} holds a certificate that has expired", path.display());
    assert_eq!(good_one.server.tls.expect("TLS").files.read(&Clock::system()).expect_err("it is not used"), expected);
}

#[test]
fn a_private_key_readable_by_everyone_is_a_warning() {
    let dir = Dir::new();
    let text = tls_files(&dir, false);
    fs::set_permissions(dir.0.path().join("tls.key"), fs::Permissions::from_mode(0o444)).expect("its mode");
    let warnings = good(&text, &with_key(&[])).warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("server.tls.key_file: "), "{warnings:?}");
}

#[test]
fn callers_are_known_by_certificate_header_or_user() {
    let dir = Dir::new();
    let config = good(&format!("{}{CALLER}", tls_files(&dir, true)), &with_key(&[]));
    assert_eq!(config.server.identity, IdentitySource::ClientCertificate);
    let [caller] = config.callers.as_slice() else { panic!("{:?}", config.callers) };
    assert_eq!(caller.identity, "orders.example");
    assert_eq!(Vec::from_iter(&caller.methods), [&"huaweicloud.scm.v1.CertificateService/SaveInfo"]);
    assert_eq!(caller.projects, Some(["env".to_owned()].into()));

    let config = good(&format!("[server]\ntrust_xfcc = true\n{CALLER}"), &with_key(&[]));
    assert_eq!(config.server.identity, IdentitySource::ForwardedHeader);

    let callers = CALLER.replace("Orders.Example", "uid:0").replace("[\"env\"]", "[\"*\"]");
    let config = good(&format!("[server]\nlisten = \"unix:/x\"\n{callers}"), &with_key(&[]));
    assert_eq!(config.server.identity, IdentitySource::PeerUser);
    assert_eq!((config.callers[0].identity.as_str(), &config.callers[0].projects), ("uid:0", &None));

    let variables = [
        ("SCM_GATEWAY__SERVER__TRUST_XFCC", "true"),
        ("SCM_GATEWAY__CALLERS__0__IDENTITY", "spiffe://Example.org/Orders"),
        ("SCM_GATEWAY__CALLERS__0__METHODS", "SaveInfo, ReadInfo"),
        ("SCM_GATEWAY__CALLERS__0__PROJECTS", "*"),
    ];
    let config = load(None, &with_key(&variables)).expect("a configuration");
    assert_eq!(config.callers[0].identity, "spiffe://Example.org/Orders", "a URI stays as it is");
    assert_eq!(config.callers[0].methods.len(), 2);
}

#[test]
fn callers_that_cannot_be_told_apart_are_a_mistake() {
    let dir = Dir::new();
    assert!(problem(CALLER).starts_with("callers: cannot be told apart: set server.tls.client_ca_file, or "));
    assert!(problem(&format!("{}{CALLER}", tls_files(&dir, false))).starts_with("callers: cannot be told apart"));
    for none in ["", "callers = []\n"] {
        let text = format!("{none}{}", tls_files(&dir, true));
        assert!(problem(&text).starts_with("callers: is missing; with server.tls.client_ca_file it lists"));
    }
    let warnings = good("[server]\ntrust_xfcc = true\n", &with_key(&[])).warnings;
    assert!(
        warnings.len() == 1 && warnings[0].starts_with("callers: is missing; with server.trust_xfcc"),
        "{warnings:?}"
    );
    assert!(good("[server]\nlisten = \"unix:/x\"\n", &with_key(&[])).warnings.is_empty());
    let both = format!("[server]\ntrust_xfcc = true\n{}{CALLER}", tls_files(&dir, true));
    assert!(problem(&both).starts_with("server.trust_xfcc: and tls.client_ca_file are two ways"));
    let open = problem(&format!("[server]\nlisten = \"0.0.0.0:1\"\nplaintext = true\ntrust_xfcc = true\n{CALLER}"));
    assert!(open.starts_with("server.trust_xfcc: is for a sidecar on this machine"), "{open}");
}

#[test]
fn a_caller_that_could_never_match_is_a_mistake() {
    let bad = |from: &str, to: &str| problem(&format!("[server]\ntrust_xfcc = true\n{}", CALLER.replace(from, to)));
    for identity in ["", "uid:1", "a b", "spiffe:", "spiffe://a b"] {
        assert!(
            bad("Orders.Example", identity).starts_with("callers[0].identity: expects a URI such as"),
            "{identity}"
        );
    }
    let methods: Vec<_> = crate::proto::RPCS.iter().filter_map(|rpc| rpc.split('/').nth(1)).collect();
    assert_eq!(methods[..2], ["SaveInfo", "ReadInfo"]);
    let expected = format!("callers[0].methods: expects a list of methods, of {}", methods.join(", "));
    for methods in ["[]", "[\"*\"]", "[\"Save\"]", "[\"SaveInfo\", \"\"]"] {
        assert_eq!(bad("[\"SaveInfo\"]", methods), expected, "{methods}");
    }
    for projects in ["[]", "[\"other\"]", "[\"*\", \"env\"]"] {
        let expected = "callers[0].projects: expects a list of the projects' ids, or [\"*\"] for all of them";
        assert_eq!(bad("[\"env\"]", projects), expected, "{projects}");
    }
    assert_eq!(bad("[\"env\"]", "\"env\""), "callers[0].projects: expects a list of texts, found a string");
    for user in ["orders.example", "uid:65534", "uid:", "uid:01", "uid:-1", "uid:+1", "spiffe://a"] {
        let text = format!("[server]\nlisten = \"unix:/x\"\n{}", CALLER.replace("Orders.Example", user));
        assert!(problem(&text).starts_with("callers[0].identity: expects the user at the other end"), "{user}");
    }
}
