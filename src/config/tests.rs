//! Tests of valid and invalid configurations.

mod callers;
mod credentials;
mod documents;
mod environment;
mod projects;
mod server;
mod temporary;
mod watch;

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use secrecy::ExposeSecret;

use super::*;
use crate::config::secret::Credentials;

const MARKER: &str = "s3cr3t";
const SERVER_KEYS: &str = "`listen`, `plaintext`, `trust_xfcc`, `xfcc_elements`, `tls`, `max_in_flight`, `drain`, `lame_duck`, \
                           `worker_threads`, `max_in_flight_per_caller`, `max_in_flight_per_project`, \
                           `max_message_size`, `memory_quota`, `memory_quota_per_caller`, `methods`, `reflection`, \
                           `max_connections`, `max_connections_per_caller`, `connection_memory_quota`, `max_connection_age`, \
                           `handshake_timeout`, `max_concurrent_streams`, `max_header_list_size`, `max_control_frames`, \
                           `initial_stream_window_size`, `initial_connection_window_size`, `keep_alive_interval`, `keep_alive_timeout`";

/// A temporary directory of one test.
struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        self.file_with_mode(name, content, 0o440)
    }

    fn file_with_mode(&self, name: &str, content: impl AsRef<[u8]>, mode: u32) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, content).expect("the file is written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("the mode is set");
        path.to_str().expect("UTF-8").to_owned()
    }

    /// Returns an entry of `[[projects]]` with valid files.
    fn project(&self, id: &str) -> String {
        let ak = self.file(&format!("{id}.ak"), format!("AK-{id}\n"));
        let sk = self.file(&format!("{id}.sk"), format!("SK-{id}\r\n"));
        format!("[[projects]]\nid = {id:?}\nak_file = {ak:?}\nsk_file = {sk:?}\n")
    }
}

fn variables(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Returns the vendor's variables with valid credentials, and `more`.
fn with_credentials(more: &[(&str, &str)]) -> Environment {
    let mut environment = variables(&[
        ("HUAWEICLOUD_SDK_AK", "AK-env"),
        ("HUAWEICLOUD_SDK_SK", "SK-env"),
        ("HUAWEICLOUD_SDK_PROJECT_ID", "env"),
    ]);
    environment.extend(variables(more));
    environment
}

/// Loads a configuration with the system clock.
fn load(file: Option<&Path>, environment: &Environment) -> Result<Config, Problems> {
    super::load(file, environment, &Clock::system())
}

fn load_text(text: &str, environment: &Environment) -> Result<Config, Problems> {
    let dir = Dir::new();
    load(Some(Path::new(&dir.file("config.toml", text))), environment)
}

#[track_caller]
fn valid(text: &str, environment: &Environment) -> Config {
    load_text(text, environment).unwrap_or_else(|problems| panic!("{problems}"))
}

#[track_caller]
fn problems(text: &str, environment: &Environment) -> Vec<String> {
    let problems = load_text(text, environment).expect_err("the configuration is invalid");
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems.to_string().lines().collect::<Vec<_>>(), lines);
    lines
}

fn credentials_of(project: &Project) -> &Credentials {
    project.credentials.as_ref().expect("the project has credentials")
}

/// Returns the only problem of a configuration.
#[track_caller]
fn problem(text: &str) -> String {
    let mut problems = problems(text, &with_credentials(&[]));
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems.remove(0)
}

#[test]
fn defaults_and_the_vendors_variables_suffice() {
    let config = load(None, &with_credentials(&[])).expect("the configuration is valid");
    assert_eq!(config.server.listen, Listen::Tcp(([127, 0, 0, 1], 50051).into()));
    assert_eq!(config.server.drain, Duration::from_secs(20));
    assert_eq!(config.server.max_message_size, 262_144);
    assert!(config.server.reflection);
    assert_eq!(config.admin.listen, ([127, 0, 0, 1], 9464).into());
    assert_eq!(config.upstream.connect_timeout, Duration::from_secs(3));
    assert_eq!(config.upstream.timeout, Duration::from_secs(10));
    assert!(config.upstream.ca.is_none());
    assert!(config.upstream.send_project_id);
    assert!(config.upstream.proxy.is_none());
    assert_eq!(config.projects.default_project().id, "env");
    let project = config.projects.get("env").expect("the project exists");
    assert_eq!(project.endpoint.to_string(), "https://scm.cn-north-4.myhuaweicloud.com");
    assert_eq!(credentials_of(project).access_key, "AK-env");
    assert_eq!(credentials_of(project).secret_key.expose_secret(), "SK-env");
    assert!(credentials_of(project).security_token.is_none());
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn all_problems_are_reported_at_once() {
    let text = r#"
        colour = "red"
        default_project = "c"
        [server]
        lisen = "127.0.0.1:1"
        drain = 20
        max_message_size = "1GiB"
        reflection = "yes"
        [admin]
        listen = "localhost"
        [upstream]
        timeout = "1ms"
        ca_file = "/nowhere/ca.pem"
        region = "eu-west-0"
        proxy = "proxy:3128"
        [[projects]]
        id = "a b"
        ak_file = 7
        sk_file = "/nowhere/sk"
        [[projects]]
        colour = "red"
    "#;
    let environment =
        variables(&[("SCM_GATEWAY__SERVER__COLOUR", "red"), ("SCM_GATEWAY__UPSTREAM__CONNECT_TIMEOUT", "3")]);
    let expected = [
        r#"server.drain: expects a duration such as "10s", found an integer"#,
        r#"server.max_message_size: expects a size such as "64KiB", from 1.0 KiB to 16.0 MiB"#,
        "server.reflection: expects true or false without quotes, found a string",
        &format!("server.lisen: unknown key; the keys here are {SERVER_KEYS}"),
        &format!("SCM_GATEWAY__SERVER__COLOUR: unknown variable; the keys here are {SERVER_KEYS}"),
        r#"admin.listen: expects an IP address and port such as "127.0.0.1:9464""#,
        r#"SCM_GATEWAY__UPSTREAM__CONNECT_TIMEOUT: expects a duration such as "10s", from 1ms to 1m"#,
        r#"upstream.timeout: expects a duration such as "10s", from 50ms to 5m"#,
        "upstream.ca_file: /nowhere/ca.pem cannot be read: No such file or directory (os error 2)",
        "upstream.proxy: expects a URL such as \"http://proxy.example:3128\", perhaps with user:password@ before the \
         host: it begins with https:// or http://",
        "upstream.region: expects one of cn-north-4, ap-southeast-1, my-kualalumpur-1; for another region set \
         `endpoint` instead",
        "projects[0].id: expects 1 to 64 letters, digits, `_` and `-`",
        "projects[0].ak_file: expects the path of a file, found an integer",
        "projects[0].sk_file: /nowhere/sk cannot be read: No such file or directory (os error 2)",
        "projects[1].id: is missing; it is the project's id at the vendor",
        "projects[1].ak_file: is missing; it is the file with the access key id (AK)",
        "projects[1].sk_file: is missing; it is the file with the secret access key (SK)",
        "projects[1].colour: unknown key; the keys here are `id`, `domain_id`, `region`, `endpoint`, `ak_file`, `sk_file`, \
         `security_token_file`, `oidc`, `pod_identity`",
        "colour: unknown key; the keys here are `server`, `admin`, `upstream`, `watch`, `default_project`, `projects`, `callers`",
    ];
    assert_eq!(problems(text, &environment), expected);
}

#[test]
fn syntax_errors_name_the_position_only() {
    let table = [
        (format!("[server]\nlisten = {MARKER}\n"), "line 2, column 10: not valid TOML"),
        (format!("{MARKER} = \"1\"\n{MARKER} = \"2\""), "line 2, column 1: the key stands here for the second time"),
        (format!("[upstream]\nproxy = \"{MARKER}\n"), "line 2, column 16: not valid TOML"),
        (
            format!("{MARKER}.a = 1\n[{MARKER}]\na = {MARKER}"),
            "line 2, column 2: the key stands here for the second time",
        ),
        (
            format!("[server]\nlisten = \u{201c}{MARKER}\u{201d}\n"),
            "line 2, column 10: not valid TOML (the line has a typographic quotation mark)",
        ),
        (
            format!("[server]\r\nlisten\u{a0}= \"{MARKER}\"\r\n"),
            "line 2, column 7: not valid TOML (the line has a non-breaking or other special space)",
        ),
    ];
    for (text, message) in table {
        let problems = load_text(&text, &with_credentials(&[])).expect_err("the configuration is invalid");
        assert!(problems.to_string().ends_with(&format!("config.toml: {message}")), "{problems}");
        assert!(!format!("{problems} {problems:?}").contains(MARKER), "{problems:?}");
    }
}

#[test]
fn a_byte_order_mark_and_carriage_returns_are_ignored() {
    let config = valid("\u{feff}[server]\r\ndrain = \"1s\"\r\n", &with_credentials(&[]));
    assert_eq!(config.server.drain, secs(1));
}

#[test]
fn characters_of_copied_values_are_named() {
    let quote = "a typographic quotation mark";
    for (key, value, found) in [
        ("SERVER__LISTEN", "\u{201c}127.0.0.1:50051\u{201d}", quote),
        ("SERVER__LISTEN", "127.0.0.1:50051\r", "a carriage return"),
        ("SERVER__LISTEN", "127.0.0.1:50051 ", "a space at its start or end"),
        ("SERVER__LISTEN", "unix:\u{201c}/run/x\u{201d}", quote),
        ("ADMIN__LISTEN", "127.0.0.1:9464\u{200b}", "an invisible character"),
        ("UPSTREAM__ENDPOINT", "\u{201c}https://scm.example\u{201d}", quote),
        ("UPSTREAM__ENDPOINT", "https://scm\u{2011}x.example", "a typographic dash"),
        ("UPSTREAM__PROXY", "\u{feff}http://proxy.example", "a byte order mark"),
        ("UPSTREAM__TIMEOUT", "10\u{200b}s", "an invisible character"),
        ("UPSTREAM__ENDPOINT", "https://scm.example\u{a0}", "a non-breaking or other special space"),
        ("UPSTREAM__REGION", "cn\u{2013}north\u{2013}4", "a typographic dash"),
        ("UPSTREAM__CA_FILE", "/nowhere/\u{201c}ca.pem\u{201d}", quote),
        ("UPSTREAM__ATTEMPTS", "\u{2018}3\u{2019}", quote),
        ("SERVER__PLAINTEXT", "\u{201c}true\u{201d}", quote),
        ("DEFAULT_PROJECT", "\u{201c}env\u{201d}", quote),
        ("CALLERS__0__IDENTITY", "\u{201c}spiffe://example.org/x\u{201d}", quote),
        ("CALLERS__0__METHODS", "SaveInfo,\u{201c}ReadInfo\u{201d}", quote),
        ("PROJECTS__0__ID", "\u{201c}0123\u{201d}", quote),
        ("PROJECTS__0__AK_FILE", "/nowhere/ak\u{200b}", "an invisible character"),
    ] {
        let variable = format!("SCM_GATEWAY__{key}");
        let problems = load(None, &with_credentials(&[(&variable, value)])).expect_err(key).to_string();
        let line = problems.lines().find(|line| line.starts_with(&format!("{variable}: "))).expect(&problems);
        assert!(line.ends_with(&format!(" (the value has {found})")), "{line}");
    }
    let text = "[server]\nlisten = \"\u{201c}127.0.0.1:50051\u{201d}\"\n";
    let problems = load_text(text, &with_credentials(&[])).expect_err("the address is quoted").to_string();
    assert!(problems.ends_with("(the value has a typographic quotation mark)"), "{problems}");
    for project in ["\u{201c}0123\u{201d}", "0123\r"] {
        let environment = with_credentials(&[("HUAWEICLOUD_SDK_PROJECT_ID", project)]);
        let problems = load(None, &environment).expect_err("the id is invalid").to_string();
        assert!(problems.contains("(the value has a "), "{problems}");
    }
}

#[test]
fn unreadable_files_are_named() {
    let dir = Dir::new();
    let read = |path: &str| {
        load(Some(Path::new(path)), &with_credentials(&[])).expect_err("the configuration is invalid").to_string()
    };
    let (latin1, huge) = (dir.file("latin1", b"# \xe9"), dir.file("huge", vec![b'#'; 1024 * 1024 + 1]));
    let directory = dir.0.path().to_str().expect("UTF-8");
    assert_eq!(read(&latin1), format!("{latin1}: is not UTF-8"));
    assert_eq!(read(&huge), format!("{huge}: is larger than 1024 KiB"));
    assert_eq!(read(directory), format!("{directory}: is not a regular file"));
    assert_eq!(read("/nowhere"), "/nowhere: cannot be read: No such file or directory (os error 2)");
}

#[test]
fn secrets_are_redacted_in_debug_output() {
    let dir = Dir::new();
    let secret = dir.file("secret", MARKER);
    let project = format!(
        "[[projects]]\nid = \"p\"\nak_file = {secret:?}\nsk_file = {secret:?}\nsecurity_token_file = {secret:?}\n"
    );
    let proxy = format!("[upstream]\nproxy = \"http://user:{MARKER}@proxy.example\"\n");
    let headers = format!("authorization={MARKER}");
    let environment = variables(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", &headers),
    ]);
    let config = valid(&format!("{proxy}{project}"), &environment);
    assert!(!format!("{config:?}").contains(MARKER), "{config:?}");
    let traces = config.telemetry.traces.as_ref().expect("traces");
    assert_eq!(traces.headers[0].1.expose_secret(), MARKER);
    let proxy = config.upstream.proxy.expect("a proxy");
    assert_eq!(proxy.endpoint.to_string(), "http://proxy.example");
    let credentials = BASE64_STANDARD.encode(format!("user:{MARKER}"));
    assert_eq!(proxy.authorization.expect("credentials").expose_secret(), format!("Basic {credentials}"));
    let config =
        load(None, &with_credentials(&[("HUAWEICLOUD_SDK_SECURITY_TOKEN", MARKER), ("HUAWEICLOUD_SDK_SK", MARKER)]));
    assert!(!format!("{config:?}").contains(MARKER));
}

#[test]
fn rejected_values_are_never_shown() {
    let dir = Dir::new();
    let with_space = dir.file("secret", format!("{MARKER} {MARKER}"));
    let keys = ["default_project", "server.listen", "server.drain", "server.max_message_size", "server.reflection"]
        .into_iter()
        .chain(["admin.listen", "upstream.connect_timeout", "upstream.timeout", "upstream.send_project_id"])
        .chain(["upstream.region", "upstream.endpoint", "upstream.proxy", "server", "projects"]);
    for key in keys {
        for value in [format!("\"{MARKER}\""), format!("[\"{MARKER}\"]"), format!("{{ a = \"{MARKER} {MARKER}\" }}")] {
            let problems = load_text(&format!("{key} = {value}"), &with_credentials(&[]))
                .expect_err("the configuration is invalid");
            assert!(!format!("{problems} {problems:?}").contains(MARKER), "{problems:?}");
        }
    }
    // The secret itself instead of the path of its file, and a file with an invalid secret.
    let project = format!("[[projects]]\nid = \"p\"\nak_file = {MARKER:?}\nsk_file = {with_space:?}");
    let problems = problems(&project, &Environment::new());
    assert_eq!(problems.len(), 2);
    assert!(!problems.concat().contains(MARKER), "{problems:?}");
    let endpoint =
        format!("[upstream]\nendpoint = \"https://user:{MARKER}@scm.example\"\nproxy = \"http://u:{MARKER}%@p\"");
    let problems = self::problems(&endpoint, &with_credentials(&[("HUAWEICLOUD_SDK_SK", "s3cr3t s3cr3t")]));
    assert_eq!(problems.len(), 3);
    assert!(!problems.concat().contains(MARKER), "{problems:?}");
}

#[test]
fn unknown_keys_are_escaped_and_truncated() {
    assert!(problem("\"a\\nb\\u001b[2J\" = 1").starts_with(r#""a\nb\u{1b}[2J": unknown key; "#));
    assert!(problem("\"\" = 1").starts_with("\"\": unknown key; "));
    assert!(problem(&format!("{} = 1", "k".repeat(500))).len() < 200);
}

#[test]
fn both_bounds_are_inclusive() {
    let table = [
        ("server.drain", ["\"0s\"", "\"1h\""], ["\"-1s\"", "\"1h 1s\""]),
        ("server.max_message_size", ["\"1KiB\"", "\"16MiB\""], ["\"1023B\"", "\"16.1MiB\""]),
        ("upstream.connect_timeout", ["\"1ms\"", "\"60s\""], ["\"0s\"", "\"61s\""]),
        ("upstream.timeout", ["\"50ms\"", "\"5min\""], ["\"49ms\"", "\"301s\""]),
    ];
    for (key, inside, outside) in table {
        for value in inside {
            valid(&format!("{key} = {value}"), &with_credentials(&[]));
        }
        for value in outside.into_iter().chain(["\"\"", "\"ten\"", "\"9999999999999999999999999999999999999h\""]) {
            let problem = problem(&format!("{key} = {value}"));
            assert!(problem.contains(", from ") && problem.contains(" to "), "{problem}");
        }
        for value in ["10", "1.5", "true", "1979-05-27", "[]", "{}"] {
            let problem = problem(&format!("{key} = {value}"));
            assert!(problem.contains("such as \"") && problem.contains(", found a"), "{problem}");
        }
    }
}

#[test]
fn problems_name_the_variable_of_a_value() {
    let table = [
        ("SCM_GATEWAY__UPSTREAM__TIMEOUT", "10", "expects a duration such as \"10s\", from 50ms to 5m"),
        ("SCM_GATEWAY__SERVER__REFLECTION", "1", "expects true or false"),
        ("SCM_GATEWAY__ADMIN__LISTEN", "", "expects an IP address and port such as \"127.0.0.1:9464\""),
        ("SCM_GATEWAY__DEFAULT_PROJECT", "other", "is not the id of a listed project"),
    ];
    for (name, value, message) in table {
        assert_eq!(problems("", &with_credentials(&[(name, value)])), [format!("{name}: {message}")]);
    }
}

#[test]
fn missing_variables_are_named_without_projects() {
    let source = "is not set; set it or another source of credentials (HUAWEICLOUD_OIDC_*, the profile, HC_CONTAINER_* or \
                  upstream.metadata_endpoint), or list the projects and their files under [[projects]]";
    let id = "is not set; set it, or list the projects and their files under [[projects]]";
    let missing = [("HUAWEICLOUD_SDK_AK", source), ("HUAWEICLOUD_SDK_SK", source), ("HUAWEICLOUD_SDK_PROJECT_ID", id)];
    for text in ["", "projects = []"] {
        assert_eq!(problems(text, &Environment::new()), missing.map(|(name, message)| format!("{name}: {message}")));
    }
}

#[test]
fn the_vendors_variables_are_checked_like_files() {
    let table = [
        ("HUAWEICLOUD_SDK_AK", "", "is empty"),
        ("HUAWEICLOUD_SDK_SK", " ", "is only whitespace"),
        ("HUAWEICLOUD_SDK_SECURITY_TOKEN", "a b", "must hold printable ASCII only, without whitespace"),
        ("HUAWEICLOUD_SDK_PROJECT_ID", "a/b", "expects 1 to 64 letters, digits, `_` and `-`"),
    ];
    for (name, value, message) in table {
        assert_eq!(problems("", &with_credentials(&[(name, value)])), [format!("{name}: {message}")]);
    }
    let config = valid("", &with_credentials(&[("HUAWEICLOUD_SDK_SECURITY_TOKEN", "")]));
    let credentials = config.projects.default_project().credentials.as_ref();
    assert!(credentials.is_some_and(|it| it.security_token.is_none()), "an empty token is ignored");
    let config =
        valid("", &with_credentials(&[("HUAWEICLOUD_SDK_SK", "key\n"), ("HUAWEICLOUD_SDK_SECURITY_TOKEN", "token\n")]));
    let credentials = credentials_of(config.projects.get("env").expect("the project exists"));
    assert_eq!(credentials.secret_key.expose_secret(), "key");
    assert_eq!(credentials.security_token.as_ref().expect("a token").expose_secret(), "token");
}

#[test]
fn endpoints_of_projects_override_the_common_one() {
    let dir = Dir::new();
    let text = format!(
        "default_project = \"a\"\nupstream.region = \"my-kualalumpur-1\"\n{}{}region = \"ap-southeast-1\"\n{}endpoint = \"https://C.example:8443/\"",
        dir.project("a"),
        dir.project("b"),
        dir.project("c"),
    );
    let config = valid(&text, &Environment::new());
    let endpoints: Vec<_> = config.projects.iter().map(|project| project.endpoint.to_string()).collect();
    let regional = |region: &str| format!("https://scm.{region}.myhuaweicloud.com");
    assert_eq!(
        endpoints,
        [regional("my-kualalumpur-1"), regional("ap-southeast-1"), "https://c.example:8443".to_owned()]
    );
}

#[test]
fn region_and_endpoint_exclude_each_other() {
    let both = "region = \"cn-north-4\"\nendpoint = \"https://scm.example\"\n";
    let message = "is set in addition to `region`; set only one of the two";
    assert_eq!(problem(&format!("[upstream]\n{both}")), format!("upstream.endpoint: {message}"));
    let dir = Dir::new();
    assert_eq!(problem(&format!("{}{both}", dir.project("p"))), format!("projects[0].endpoint: {message}"));
}

#[test]
fn ca_certificates_are_read_and_checked() {
    let dir = Dir::new();
    let pem = |name: &str| {
        let certificate = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        (certificate.cert.pem(), certificate.signing_key.serialize_pem())
    };
    let ((first, key), (second, _)) = (pem("a.example"), pem("b.example"));
    let with = |path: &str| format!("[upstream]\nca_file = {path:?}");
    let two = dir.file("two.pem", format!("# comment\n{first}\n{second}"));
    let ca = valid(&with(&two), &with_credentials(&[])).upstream.ca.expect("roots");
    assert_eq!(ca.certificates.len(), 2);
    assert_eq!(ca.read().expect("the same"), ca.certificates);
    // Files joined without a line end, and with byte order marks.
    let joined = format!("\u{feff}{}\u{feff}{}{second}", first.trim_end(), second.trim_end());
    let joined = valid(&with(&dir.file("joined.pem", joined)), &with_credentials(&[])).upstream.ca.expect("roots");
    assert_eq!(joined.certificates, [&ca.certificates[..], &ca.certificates[1..]].concat());
    let openssl = second.replace(" CERTIFICATE-", " TRUSTED CERTIFICATE-");
    let path = dir.file("trusted.pem", format!("{first}{openssl}"));
    let warning = "has a block TRUSTED CERTIFICATE, which is ignored; convert it with `openssl x509`";
    let warnings = valid(&with(&path), &with_credentials(&[])).warnings;
    assert!(warnings.contains(&format!("upstream.ca_file: {path} {warning}")), "{warnings:?}");
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let table = [
        (dir.file("none.pem", ""), "holds no certificate in PEM"),
        (dir.file("key.pem", key), "holds no certificate in PEM"),
        (dir.file("cut.pem", &first[..100]), "is not PEM (certificate number 1)"),
        (dir.file("cut_before.pem", format!("{}\n{second}", &first[..100])), "is not PEM (certificate number 1)"),
        (dir.file("no_end.pem", format!("{}{second}", first.split("-----END").next().unwrap())), {
            "is not PEM (certificate number 1)"
        }),
        (dir.file("cut2.pem", format!("{first}{}", &second[..100])), "is not PEM (certificate number 2)"),
        (dir.file("bad.pem", format!("{first}{garbage}")), "holds something that is no certificate (number 2)"),
    ];
    for (path, message) in table {
        assert_eq!(problem(&with(&path)), format!("upstream.ca_file: {path} {message}"));
    }
}

#[test]
fn default_listeners_are_on_loopback() {
    let config = load(None, &with_credentials(&[])).expect("the configuration is valid");
    let Listen::Tcp(address) = config.server.listen else { panic!("a TCP address") };
    assert_eq!([address.ip(), config.admin.listen.ip()], [Ipv4Addr::LOCALHOST; 2]);
}

#[test]
fn remote_proxies_require_https_endpoints() {
    let text = |proxy: &str| format!("[upstream]\nendpoint = \"http://127.0.0.1:1\"\nproxy = \"{proxy}\"\n");
    let problems = load_text(&text("http://proxy.example:3128"), &with_credentials(&[]));
    assert!(problems.is_err_and(|problems| problems.to_string().starts_with("upstream.proxy: would get requests")));
    assert!(load_text(&text("http://127.0.0.1:3128"), &with_credentials(&[])).is_ok());
}

#[test]
fn settings_have_sources_and_no_secrets() {
    let text = "[server]\ndrain = \"30s\"\n[upstream]\nregion = \"ap-southeast-1\"\nattempts = 5\n";
    let variables = [
        ("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", "7"),
        ("SCM_GATEWAY__UPSTREAM__PROXY", "http://user:s3cr3t@127.0.0.1:3128"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=s3cr3t"),
    ];
    let config = valid(text, &with_credentials(&variables));
    let shown = config.settings.to_string();
    let line = |start: &str| {
        let line = shown.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start} in {shown}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("server.drain "), "server.drain = \"30s\" # file");
    assert_eq!(line("server.lame_duck "), "server.lame_duck = \"2s\" # default");
    assert_eq!(line("server.max_in_flight "), "server.max_in_flight = 7 # SCM_GATEWAY__SERVER__MAX_IN_FLIGHT");
    assert_eq!(line("server.max_in_flight_per_caller "), "server.max_in_flight_per_caller = 4 # default");
    assert_eq!(line("upstream.region "), "upstream.region = \"ap-southeast-1\" # file");
    assert_eq!(line("upstream.proxy "), "upstream.proxy = [REDACTED] # SCM_GATEWAY__UPSTREAM__PROXY");
    assert_eq!(line("HUAWEICLOUD_SDK_SK "), "HUAWEICLOUD_SDK_SK = [REDACTED] # environment");
    assert_eq!(line("HUAWEICLOUD_SDK_PROJECT_ID "), "HUAWEICLOUD_SDK_PROJECT_ID = \"env\" # environment");
    let traces = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT = \"http://collector:4318/v1/traces\" # environment";
    assert_eq!(line("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT "), traces);
    for secret in [MARKER, "AK-env", "SK-env"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let columns: Vec<_> = shown.lines().map(|line| line.find("  # ").expect("a source")).collect();
    assert!(columns.iter().all(|column| *column == columns[0]), "{shown}");
}

#[test]
fn settings_show_the_effective_region_or_endpoint() {
    let text = "[upstream]\nregion = \"ap-southeast-1\"\n";
    let endpoint = [("SCM_GATEWAY__UPSTREAM__ENDPOINT", "https://scm.example")];
    let shown = valid(text, &with_credentials(&endpoint)).settings.to_string();
    assert!(shown.contains("upstream.endpoint = ") && !shown.contains("upstream.region = "), "{shown}");
    let shown = valid("", &with_credentials(&[])).settings.to_string();
    assert!(shown.contains("upstream.region = \"cn-north-4\""), "{shown}");
}

#[test]
fn the_admin_address_is_read_alone() {
    let dir = Dir::new();
    let file =
        dir.file("config.toml", "[admin]\nlisten = \"127.0.0.1:1\"\n[[projects]]\nak_file = \"/nowhere\"\n[x]\n");
    let read = |variables: &Environment| admin_address(Some(Path::new(&file)), variables);
    assert_eq!(read(&variables(&[("SCM_GATEWAY__X", "1")])).expect("the address is valid").port(), 1);
    assert_eq!(
        read(&variables(&[("SCM_GATEWAY__ADMIN__LISTEN", "127.0.0.1:2")])).expect("the address is valid").port(),
        2
    );
    assert_eq!(admin_address(None, &variables(&[])).expect("the address is valid").port(), 9464);
    let problems =
        read(&variables(&[("SCM_GATEWAY__ADMIN__LISTEN", "x")])).expect_err("the configuration is invalid").to_string();
    assert!(problems.starts_with("SCM_GATEWAY__ADMIN__LISTEN: expects"), "{problems}");
}

#[test]
fn the_target_of_a_client_is_read_alone() {
    let dir = Dir::new();
    let text = "[server]\nlisten = \"127.0.0.1:1\"\ndrain = \"soon\"\n[server.tls]\nkey_file = \"/nowhere\"\n[x]\n";
    let file = dir.file("config.toml", format!("{text}[upstream]\nattempts = 0\n"));
    let read = |file: Option<&str>, set: &[(&str, &str)]| target(file.map(Path::new), &variables(set));
    let default = read(None, &[("SCM_GATEWAY__SERVER__DRAIN", "soon"), ("SCM_GATEWAY__X", "1")]);
    let listen = |address: &str| Listen::Tcp(address.parse().expect("an address"));
    let target = |address, tls, seconds| Target { listen: listen(address), tls, timeout: secs(seconds) };
    assert_eq!(default.expect("the target is valid"), target("127.0.0.1:50051", false, 10));
    assert_eq!(read(Some(&file), &[]).expect("the target is valid"), target("127.0.0.1:1", true, 10));
    let set = [
        ("SCM_GATEWAY__SERVER__LISTEN", "[::]:2"),
        ("SCM_GATEWAY__SERVER__TLS__CERT_FILE", "/nowhere"),
        ("SCM_GATEWAY__UPSTREAM__TIMEOUT", "3s"),
    ];
    assert_eq!(read(None, &set).expect("the target is valid"), target("[::]:2", true, 3));
    for (name, problem) in [
        ("SCM_GATEWAY__SERVER__LISTEN", "expects an IP address"),
        ("SCM_GATEWAY__UPSTREAM__TIMEOUT", "expects a duration"),
        ("SCM_GATEWAY__SERVER__TLS__CERT", "unknown variable"),
    ] {
        let problems = read(None, &[(name, "p1anted")]).expect_err("the target is invalid").to_string();
        assert!(problems.starts_with(&format!("{name}: {problem}")) && !problems.contains("p1anted"), "{problems}");
    }
}

#[test]
fn attempt_timeouts_without_effect_cause_a_warning() {
    for (text, warning) in [
        ("attempt_timeout = \"10s\"", Some("is not less than timeout, so a hanging attempt is not retried")),
        ("attempt_timeout = \"3s\"", Some("is not more than connect_timeout, which has no effect then")),
        ("attempt_timeout = \"4s\"", None),
        ("timeout = \"2s\"", None),
    ] {
        let config = valid(&format!("[upstream]\n{text}"), &with_credentials(&[]));
        let expected = warning.map(|warning| format!("upstream.attempt_timeout: {warning}"));
        assert_eq!(config.warnings, Vec::from_iter(expected), "{text}");
    }
}
