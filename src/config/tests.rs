//! What a configuration may say, and what it hears when it is wrong.

mod callers;
mod credentials;
mod documents;
mod environment;
mod projects;
mod server;

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;

use secrecy::ExposeSecret;

use std::path::PathBuf;

use super::*;
use crate::config::secret::Credentials;

const MARKER: &str = "s3cr3t";
const SERVER_KEYS: &str = "`listen`, `plaintext`, `trust_xfcc`, `tls`, `max_in_flight`, `drain`, `lame_duck`, \
                           `worker_threads`, `max_in_flight_per_caller`, `max_in_flight_per_project`, \
                           `max_message_size`, `memory_quota`, `memory_quota_per_caller`, `reflection`, \
                           `max_connections`, `max_connections_per_caller`, `max_connection_age`, \
                           `handshake_timeout`, `max_concurrent_streams`, `max_header_list_size`, `max_control_frames`, \
                           `initial_stream_window_size`, `initial_connection_window_size`, `keep_alive_interval`, `keep_alive_timeout`";

/// A directory of one test, gone at its end.
struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        self.file_with_mode(name, content, 0o440)
    }

    fn file_with_mode(&self, name: &str, content: impl AsRef<[u8]>, mode: u32) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, content).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
        path.to_str().expect("UTF-8").to_owned()
    }

    /// `[[projects]]` with good files.
    fn project(&self, id: &str) -> String {
        let ak = self.file(&format!("{id}.ak"), format!("AK-{id}\n"));
        let sk = self.file(&format!("{id}.sk"), format!("SK-{id}\r\n"));
        format!("[[projects]]\nid = {id:?}\nak_file = {ak:?}\nsk_file = {sk:?}\n")
    }
}

fn variables(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The vendor's variables, and more.
fn with_key(more: &[(&str, &str)]) -> Environment {
    let mut environment = variables(&[
        ("HUAWEICLOUD_SDK_AK", "AK-env"),
        ("HUAWEICLOUD_SDK_SK", "SK-env"),
        ("HUAWEICLOUD_SDK_PROJECT_ID", "env"),
    ]);
    environment.extend(variables(more));
    environment
}

/// Loads with the system clock.
fn load(file: Option<&Path>, environment: &Environment) -> Result<Config, Problems> {
    super::load(file, environment, &Clock::system())
}

fn load_text(text: &str, environment: &Environment) -> Result<Config, Problems> {
    let dir = Dir::new();
    load(Some(Path::new(&dir.file("config.toml", text))), environment)
}

#[track_caller]
fn good(text: &str, environment: &Environment) -> Config {
    load_text(text, environment).unwrap_or_else(|problems| panic!("{problems}"))
}

#[track_caller]
fn problems(text: &str, environment: &Environment) -> Vec<String> {
    let problems = load_text(text, environment).expect_err("problems");
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems.to_string().lines().collect::<Vec<_>>(), lines);
    lines
}

fn key_of(project: &Project) -> &Credentials {
    project.credentials.as_ref().expect("a key")
}

/// The one problem with these keys.
#[track_caller]
fn problem(text: &str) -> String {
    let mut problems = problems(text, &with_key(&[]));
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems.remove(0)
}

#[test]
fn the_defaults_and_the_vendors_variables_suffice() {
    let config = load(None, &with_key(&[])).expect("a configuration");
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
    let project = config.projects.get("env").expect("the project");
    assert_eq!(project.endpoint.to_string(), "https://scm.cn-north-4.myhuaweicloud.com");
    assert_eq!(key_of(project).access_key, "AK-env");
    assert_eq!(key_of(project).secret_key.expose_secret(), "SK-env");
    assert!(key_of(project).security_token.is_none());
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn all_problems_come_at_once() {
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
        "projects[1].colour: unknown key; the keys here are `id`, `region`, `endpoint`, `ak_file`, `sk_file`, \
         `security_token_file`",
        "colour: unknown key; the keys here are `server`, `admin`, `upstream`, `default_project`, `projects`, `callers`",
    ];
    assert_eq!(problems(text, &environment), expected);
}

#[test]
fn a_syntax_error_names_its_place_and_not_its_line() {
    let table = [
        (format!("[server]\nlisten = {MARKER}\n"), "line 2, column 10: not valid TOML"),
        (format!("{MARKER} = \"1\"\n{MARKER} = \"2\""), "line 2, column 1: the key stands here for the second time"),
        (format!("[upstream]\nproxy = \"{MARKER}\n"), "line 2, column 16: not valid TOML"),
        (
            format!("{MARKER}.a = 1\n[{MARKER}]\na = {MARKER}"),
            "line 2, column 2: the key stands here for the second time",
        ),
    ];
    for (text, message) in table {
        let problems = load_text(&text, &with_key(&[])).expect_err("a problem");
        assert!(problems.to_string().ends_with(&format!("config.toml: {message}")), "{problems}");
        assert!(!format!("{problems} {problems:?}").contains(MARKER), "{problems:?}");
    }
}

#[test]
fn an_unreadable_file_is_named() {
    let dir = Dir::new();
    let read = |path: &str| load(Some(Path::new(path)), &with_key(&[])).expect_err("a problem").to_string();
    let (latin1, huge) = (dir.file("latin1", b"# \xe9"), dir.file("huge", vec![b'#'; 1024 * 1024 + 1]));
    let directory = dir.0.path().to_str().expect("UTF-8");
    assert_eq!(read(&latin1), format!("{latin1}: is not UTF-8"));
    assert_eq!(read(&huge), format!("{huge}: is larger than 1024 KiB"));
    assert_eq!(read(directory), format!("{directory}: is not a regular file"));
    assert_eq!(read("/nowhere"), "/nowhere: cannot be read: No such file or directory (os error 2)");
}

#[test]
fn secrets_show_nowhere() {
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
    let config = good(&format!("{proxy}{project}"), &environment);
    assert!(!format!("{config:?}").contains(MARKER), "{config:?}");
    let traces = config.telemetry.traces.as_ref().expect("traces");
    assert_eq!(traces.headers[0].1.expose_secret(), MARKER);
    assert_eq!(config.upstream.proxy.expect("a proxy").expose_secret(), format!("http://user:{MARKER}@proxy.example"));
    let config = load(None, &with_key(&[("HUAWEICLOUD_SDK_SECURITY_TOKEN", MARKER), ("HUAWEICLOUD_SDK_SK", MARKER)]));
    assert!(!format!("{config:?}").contains(MARKER));
}

#[test]
fn a_refused_value_is_never_repeated() {
    let dir = Dir::new();
    let blank_inside = dir.file("secret", format!("{MARKER} {MARKER}"));
    let keys = ["default_project", "server.listen", "server.drain", "server.max_message_size", "server.reflection"]
        .into_iter()
        .chain(["admin.listen", "upstream.connect_timeout", "upstream.timeout", "upstream.send_project_id"])
        .chain(["upstream.region", "upstream.endpoint", "upstream.proxy", "server", "projects"]);
    for key in keys {
        for value in [format!("\"{MARKER}\""), format!("[\"{MARKER}\"]"), format!("{{ a = \"{MARKER} {MARKER}\" }}")] {
            let problems = load_text(&format!("{key} = {value}"), &with_key(&[])).expect_err("a problem");
            assert!(!format!("{problems} {problems:?}").contains(MARKER), "{problems:?}");
        }
    }
    // The secret itself where the name of its file belongs, and a file with a bad secret.
    let project = format!("[[projects]]\nid = \"p\"\nak_file = {MARKER:?}\nsk_file = {blank_inside:?}");
    let problems = problems(&project, &Environment::new());
    assert_eq!(problems.len(), 2);
    assert!(!problems.concat().contains(MARKER), "{problems:?}");
    let endpoint =
        format!("[upstream]\nendpoint = \"https://user:{MARKER}@scm.example\"\nproxy = \"http://u:{MARKER}%@p\"");
    let problems = self::problems(&endpoint, &with_key(&[("HUAWEICLOUD_SDK_SK", "s3cr3t s3cr3t")]));
    assert_eq!(problems.len(), 3);
    assert!(!problems.concat().contains(MARKER), "{problems:?}");
}

#[test]
fn an_odd_key_stays_on_its_line() {
    assert!(problem("\"a\\nb\\u001b[2J\" = 1").starts_with(r#""a\nb\u{1b}[2J": unknown key; "#));
    assert!(problem("\"\" = 1").starts_with("\"\": unknown key; "));
    assert!(problem(&format!("{} = 1", "k".repeat(500))).len() < 200);
}

#[test]
fn bounds_hold_at_both_ends() {
    let table = [
        ("server.drain", ["\"0s\"", "\"1h\""], ["\"-1s\"", "\"1h 1s\""]),
        ("server.max_message_size", ["\"1KiB\"", "\"16MiB\""], ["\"1023B\"", "\"16.1MiB\""]),
        ("upstream.connect_timeout", ["\"1ms\"", "\"60s\""], ["\"0s\"", "\"61s\""]),
        ("upstream.timeout", ["\"50ms\"", "\"5min\""], ["\"49ms\"", "\"301s\""]),
    ];
    for (key, inside, outside) in table {
        for value in inside {
            good(&format!("{key} = {value}"), &with_key(&[]));
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
fn a_value_from_the_environment_is_called_by_its_variable() {
    let table = [
        ("SCM_GATEWAY__UPSTREAM__TIMEOUT", "10", "expects a duration such as \"10s\", from 50ms to 5m"),
        ("SCM_GATEWAY__SERVER__REFLECTION", "1", "expects true or false"),
        ("SCM_GATEWAY__ADMIN__LISTEN", "", "expects an IP address and port such as \"127.0.0.1:9464\""),
        ("SCM_GATEWAY__DEFAULT_PROJECT", "other", "is none of the projects' ids"),
    ];
    for (name, value, message) in table {
        assert_eq!(problems("", &with_key(&[(name, value)])), [format!("{name}: {message}")]);
    }
}

#[test]
fn without_projects_every_missing_variable_is_named() {
    let cure = "is not set; set it, or list the projects and their files under [[projects]]";
    let names = ["HUAWEICLOUD_SDK_AK", "HUAWEICLOUD_SDK_SK", "HUAWEICLOUD_SDK_PROJECT_ID"];
    for text in ["", "projects = []"] {
        assert_eq!(problems(text, &Environment::new()), names.map(|name| format!("{name}: {cure}")));
    }
}

#[test]
fn the_vendors_variables_follow_the_rules_of_the_files() {
    let table = [
        ("HUAWEICLOUD_SDK_AK", "", "is empty"),
        ("HUAWEICLOUD_SDK_SK", " ", "is blank"),
        ("HUAWEICLOUD_SDK_SECURITY_TOKEN", "a b", "must hold printable ASCII only, without blanks"),
        ("HUAWEICLOUD_SDK_PROJECT_ID", "a/b", "expects 1 to 64 letters, digits, `_` and `-`"),
    ];
    for (name, value, message) in table {
        assert_eq!(problems("", &with_key(&[(name, value)])), [format!("{name}: {message}")]);
    }
    let config = good("", &with_key(&[("HUAWEICLOUD_SDK_SECURITY_TOKEN", "")]));
    let key = config.projects.default_project().credentials.as_ref();
    assert!(key.is_some_and(|key| key.security_token.is_none()), "an empty token is none");
    let config = good("", &with_key(&[("HUAWEICLOUD_SDK_SK", "key\n"), ("HUAWEICLOUD_SDK_SECURITY_TOKEN", "token\n")]));
    let credentials = key_of(config.projects.get("env").expect("the project"));
    assert_eq!(credentials.secret_key.expose_secret(), "key");
    assert_eq!(credentials.security_token.as_ref().expect("a token").expose_secret(), "token");
}

#[test]
fn a_projects_own_endpoint_goes_before_the_common_one() {
    let dir = Dir::new();
    let text = format!(
        "default_project = \"a\"\nupstream.region = \"my-kualalumpur-1\"\n{}{}region = \"ap-southeast-1\"\n{}endpoint = \"https://C.example:8443/\"",
        dir.project("a"),
        dir.project("b"),
        dir.project("c"),
    );
    let config = good(&text, &Environment::new());
    let endpoints: Vec<_> = config.projects.iter().map(|project| project.endpoint.to_string()).collect();
    let regional = |region: &str| format!("https://scm.{region}.myhuaweicloud.com");
    assert_eq!(
        endpoints,
        [regional("my-kualalumpur-1"), regional("ap-southeast-1"), "https://c.example:8443".to_owned()]
    );
}

#[test]
fn region_and_endpoint_exclude_each_other_in_one_place() {
    let both = "region = \"cn-north-4\"\nendpoint = \"https://scm.example\"\n";
    let message = "is set beside `region`; set only one of the two";
    assert_eq!(problem(&format!("[upstream]\n{both}")), format!("upstream.endpoint: {message}"));
    let dir = Dir::new();
    assert_eq!(problem(&format!("{}{both}", dir.project("p"))), format!("projects[0].endpoint: {message}"));
}

#[test]
fn ca_certificates_are_read_and_looked_at() {
    let dir = Dir::new();
    let pem = |name: &str| {
        let certificate = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        (certificate.cert.pem(), certificate.signing_key.serialize_pem())
    };
    let ((first, key), (second, _)) = (pem("a.example"), pem("b.example"));
    let with = |path: &str| format!("[upstream]\nca_file = {path:?}");
    let two = dir.file("two.pem", format!("# comment\n{first}\n{second}"));
    let ca = good(&with(&two), &with_key(&[])).upstream.ca.expect("roots");
    assert_eq!(ca.certificates.len(), 2);
    assert_eq!(ca.read().expect("the same"), ca.certificates);
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let table = [
        (dir.file("none.pem", ""), "holds no certificate in PEM"),
        (dir.file("key.pem", key), "holds no certificate in PEM"),
        (dir.file("cut.pem", &first[..100]), "is not PEM"),
        (dir.file("bad.pem", format!("{first}{garbage}")), "holds something that is no certificate (number 2)"),
    ];
    for (path, message) in table {
        assert_eq!(problem(&with(&path)), format!("upstream.ca_file: {path} {message}"));
    }
}

#[test]
fn every_default_lies_on_loopback() {
    let config = load(None, &with_key(&[])).expect("a configuration");
    let Listen::Tcp(address) = config.server.listen else { panic!("a TCP address") };
    assert_eq!([address.ip(), config.admin.listen.ip()], [Ipv4Addr::LOCALHOST; 2]);
}

#[test]
fn a_proxy_elsewhere_never_sees_plain_text() {
    let text = |proxy: &str| format!("[upstream]\nendpoint = \"http://127.0.0.1:1\"\nproxy = \"{proxy}\"\n");
    let problems = load_text(&text("http://proxy.example:3128"), &with_key(&[]));
    assert!(problems.is_err_and(|problems| problems.to_string().starts_with("upstream.proxy: would get requests")));
    assert!(load_text(&text("http://127.0.0.1:3128"), &with_key(&[])).is_ok());
}

#[test]
fn every_value_is_shown_with_its_source_and_no_secret() {
    let text = "[server]\ndrain = \"30s\"\n[upstream]\nregion = \"ap-southeast-1\"\nattempts = 5\n";
    let variables = [
        ("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", "7"),
        ("SCM_GATEWAY__UPSTREAM__PROXY", "http://user:s3cr3t@127.0.0.1:3128"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=s3cr3t"),
    ];
    let config = good(text, &with_key(&variables));
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
fn of_region_and_endpoint_the_one_that_counts_is_shown() {
    let text = "[upstream]\nregion = \"ap-southeast-1\"\n";
    let endpoint = [("SCM_GATEWAY__UPSTREAM__ENDPOINT", "https://scm.example")];
    let shown = good(text, &with_key(&endpoint)).settings.to_string();
    assert!(shown.contains("upstream.endpoint = ") && !shown.contains("upstream.region = "), "{shown}");
    let shown = good("", &with_key(&[])).settings.to_string();
    assert!(shown.contains("upstream.region = \"cn-north-4\""), "{shown}");
}

#[test]
fn the_admin_address_is_read_without_the_rest() {
    let dir = Dir::new();
    let file =
        dir.file("config.toml", "[admin]\nlisten = \"127.0.0.1:1\"\n[[projects]]\nak_file = \"/nowhere\"\n[x]\n");
    let read = |variables: &Environment| admin_address(Some(Path::new(&file)), variables);
    assert_eq!(read(&variables(&[("SCM_GATEWAY__X", "1")])).expect("an address").port(), 1);
    assert_eq!(read(&variables(&[("SCM_GATEWAY__ADMIN__LISTEN", "127.0.0.1:2")])).expect("an address").port(), 2);
    assert_eq!(admin_address(None, &variables(&[])).expect("an address").port(), 9464);
    let problems = read(&variables(&[("SCM_GATEWAY__ADMIN__LISTEN", "x")])).expect_err("a problem").to_string();
    assert!(problems.starts_with("SCM_GATEWAY__ADMIN__LISTEN: expects"), "{problems}");
}
