//! Tests of the services that issue temporary credentials.

use super::*;
use crate::config::credentials::jwt::tests::token;

const PROVIDER: &str = "iam::account:oidcProvider:cluster";
const AGENCY_URN: &str = "iam::account:agency:scm";
const AGENT: &str = "http://127.0.0.1:8080/v1/credentials";
const METADATA: (&str, &str) = ("SCM_GATEWAY__UPSTREAM__METADATA_ENDPOINT", "http://169.254.169.254");
const LOCAL_STS: &str = "upstream.sts_endpoint = \"http://localhost:1\"\n";

/// The time at which the tests read the configuration, and a payload of a token that is valid then.
const NOW: u64 = 1_800_000_000;
const VALID: &str =
    r#"{"iss":"https://issuer","aud":["sts"],"sub":"system:serviceaccount:scm:gateway","exp":1800003590}"#;

impl Dir {
    pub(super) fn token_file(&self) -> String {
        let path = self.0.path().join("token");
        if path.exists() { path.to_str().expect("UTF-8").to_owned() } else { self.file("token", token(VALID) + "\n") }
    }

    /// Returns an entry of `[[projects]]` with `[projects.oidc]` at its end.
    pub(super) fn oidc_project(&self, id: &str) -> String {
        let token = self.token_file();
        let urns = format!("provider_urn = {PROVIDER:?}\nagency_urn = {AGENCY_URN:?}");
        format!("[[projects]]\nid = {id:?}\n[projects.oidc]\n{urns}\ntoken_file = {token:?}\n")
    }

    /// Returns an entry of `[[projects]]` with `[projects.pod_identity]` at its end.
    fn pod_project(&self, uri: &str) -> String {
        let token = self.token_file();
        let table = format!("credentials_full_uri = {uri:?}\nauthorization_token_file = {token:?}");
        format!("[[projects]]\nid = \"p\"\n[projects.pod_identity]\n{table}\n")
    }

    /// Returns all of the vendor's variables for OIDC.
    pub(super) fn oidc_variables(&self) -> Environment {
        variables(&[
            ("HUAWEICLOUD_SDK_PROJECT_ID", "env"),
            ("HUAWEICLOUD_OIDC_PROVIDER_URN", PROVIDER),
            ("HUAWEICLOUD_OIDC_AGENCY_URN", AGENCY_URN),
            ("HUAWEICLOUD_OIDC_TOKEN_FILE", &self.token_file()),
            ("HUAWEICLOUD_OIDC_SESSION_NAME", "session"),
            ("HUAWEICLOUD_OIDC_DURATION_SECONDS", "900"),
            ("HUAWEICLOUD_OIDC_POLICY", "{}"),
            ("HUAWEICLOUD_OIDC_POLICY_IDS", " a, b-1 ,"),
        ])
    }

    /// Returns the vendor's variables for pod identity.
    pub(super) fn pod_variables(&self) -> Environment {
        variables(&[
            ("HUAWEICLOUD_SDK_PROJECT_ID", "env"),
            ("HC_CONTAINER_CREDENTIALS_FULL_URI", AGENT),
            ("HC_CONTAINER_AUTHORIZATION_TOKEN_FILE", &self.token_file()),
        ])
    }
}

/// Returns the variables with some of them set, or removed if they have no value.
fn with(mut environment: Environment, changes: &[(&str, Option<&str>)]) -> Environment {
    for (name, value) in changes {
        match value {
            Some(value) => environment.insert((*name).to_owned(), (*value).to_owned()),
            None => environment.remove(*name),
        };
    }
    environment
}

/// Reads a configuration at the time `NOW`, on a host with this name.
fn read_on(host: &str, text: &str, environment: &Environment) -> Result<Config, Vec<String>> {
    let clock = Clock::from_fn(|| std::time::SystemTime::UNIX_EPOCH + secs(NOW));
    let table = text.parse().expect("TOML");
    read(table, environment, &clock, host).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

#[track_caller]
fn read_valid(text: &str, environment: &Environment) -> Config {
    read_on("host", text, environment).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

#[track_caller]
fn read_invalid(text: &str, environment: &Environment) -> Vec<String> {
    read_on("host", text, environment).expect_err("the configuration is invalid")
}

#[track_caller]
fn temporary(project: &Project) -> &TemporarySource {
    let CredentialsSource::Temporary(source) = &project.credentials_source else { panic!("a temporary source") };
    source
}

#[track_caller]
fn oidc(config: &Config) -> &Oidc {
    let TemporarySource::Oidc(oidc) = temporary(config.projects.default_project()) else { panic!("OIDC") };
    oidc
}

#[track_caller]
fn pod_identity(config: &Config) -> &PodIdentity {
    let TemporarySource::PodIdentity(pod) = temporary(config.projects.default_project()) else { panic!("a pod") };
    pod
}

#[test]
fn tables_and_variables_set_the_same_source() {
    let dir = Dir::new();
    let from_variables = read_valid("", &dir.oidc_variables());
    let keys = "session_name = \"session\"\nduration = \"15m\"\npolicy = \"{}\"\npolicy_ids = [\"a\", \"b-1\"]\n";
    let from_file = read_valid(&(dir.oidc_project("p") + keys), &Environment::new());
    assert_eq!(oidc(&from_file), oidc(&from_variables));
    let prefixed = dir.oidc_variables().into_iter().map(|(name, value)| {
        let key = name.replace("HUAWEICLOUD_SDK_PROJECT_ID", "ID").replace("HUAWEICLOUD_OIDC_", "OIDC__");
        let value = if key.ends_with("SECONDS") { "15m".to_owned() } else { value };
        (format!("SCM_GATEWAY__PROJECTS__0__{}", key.replace("_SECONDS", "")), value)
    });
    assert_eq!(oidc(&read_valid("", &prefixed.collect())), oidc(&from_variables));
    let Oidc { sts_endpoint, session_name, duration, policy, policy_ids, .. } = oidc(&from_variables);
    assert_eq!(sts_endpoint.to_string(), "https://sts.cn-north-4.myhuaweicloud.com");
    assert_eq!((session_name.as_str(), *duration, policy.as_deref()), ("session", secs(900), Some("{}")));
    assert_eq!(policy_ids[..], ["a", "b-1"]);

    let from_variables = read_valid("", &dir.pod_variables());
    let from_file = read_valid(&dir.pod_project(AGENT), &Environment::new());
    assert_eq!(pod_identity(&from_file), pod_identity(&from_variables));
    let PodIdentity { endpoint, path, authorization_token_file } = pod_identity(&from_file);
    assert_eq!((endpoint.to_string().as_str(), path.as_str()), ("http://127.0.0.1:8080", "/v1/credentials"));
    assert_eq!(authorization_token_file.read().expect("a token").expose_secret(), token(VALID));
}

#[test]
fn projects_with_equal_tables_have_equal_sources() {
    let dir = Dir::new();
    let text = format!("default_project = \"a\"\n{}{}", dir.oidc_project("a"), dir.oidc_project("b"));
    let config = read_valid(&text, &Environment::new());
    let sources: Vec<_> = config.projects.iter().map(temporary).collect();
    assert_eq!(sources[0], sources[1]);
    let other = format!("{text}duration = \"2h\"\n");
    let config = read_valid(&other, &Environment::new());
    let sources: Vec<_> = config.projects.iter().map(temporary).collect();
    assert_ne!(sources[0], sources[1]);
    let regions = text.replace("id = \"a\"", "id = \"a\"\nregion = \"ap-southeast-1\"");
    let config = read_valid(&regions, &Environment::new());
    let sources: Vec<_> = config.projects.iter().map(temporary).collect();
    assert_eq!(sources[0], sources[1], "STS of any region serves all");
    assert_eq!(sources[0].endpoint().to_string(), "https://sts.ap-southeast-1.myhuaweicloud.com");
}

#[test]
fn the_first_source_that_is_set_counts() {
    let dir = Dir::new();
    let profile = dir.file("profile", "[basic]\nak = AK\nsk = SK\n");
    let keys = [("HUAWEICLOUD_SDK_AK", Some("AK")), ("HUAWEICLOUD_SDK_SK", Some("SK"))];
    let profile = [("HUAWEICLOUD_SDK_CREDENTIALS_FILE", Some(profile.as_str()))];
    let agency = [(METADATA.0, Some(METADATA.1))];
    let all: Environment = dir.oidc_variables().into_iter().chain(dir.pod_variables()).collect();
    let all = with(with(with(all, &keys), &profile), &agency);
    let names = [
        "HUAWEICLOUD_OIDC_*",
        "HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK",
        { "HUAWEICLOUD_SDK_CREDENTIALS_FILE" },
        "HC_CONTAINER_*",
        "upstream.metadata_endpoint",
    ];
    let prefixes = ["HUAWEICLOUD_OIDC_", "HUAWEICLOUD_SDK_?K", "HUAWEICLOUD_SDK_CREDENTIALS_FILE", "HC_CONTAINER_"];
    let mut left = all;
    for (index, source) in ["oidc", "environment", "profile", "pod_identity", "ecs_agency"].into_iter().enumerate() {
        let config = read_valid("", &left);
        assert_eq!(config.projects.default_project().credentials_source.name(), source);
        let ignored = names[index + 1..].join(", ");
        let message = "is the source of the credentials; other sources are set and ignored";
        let warning = (!ignored.is_empty()).then(|| format!("{}: {message}: {ignored}", names[index]));
        assert_eq!(config.warnings, Vec::from_iter(warning));
        // An empty variable counts as unset.
        let prefix = prefixes.get(index).copied().unwrap_or_default();
        for (name, value) in &mut left {
            if name.starts_with(prefix) && prefix != "HUAWEICLOUD_SDK_?K" {
                value.clear();
            }
        }
        left.retain(|name, value| {
            let is_key = ["HUAWEICLOUD_SDK_AK", "HUAWEICLOUD_SDK_SK"].contains(&name.as_str());
            !(is_key && prefix.contains('?') || name.ends_with("CREDENTIALS_FILE") && value.is_empty())
        });
    }
}

#[test]
fn an_incomplete_source_is_an_error() {
    let dir = Dir::new();
    let profile = dir.file("profile", "[basic]\nak = AK\n");
    let (oidc, pod) = (dir.oidc_variables(), dir.pod_variables());
    let keys = with_credentials(&[]);
    let no_id = "is not set; set it, or list the projects and their files under [[projects]]";
    let unset = "is not set; set it or another source of credentials (HUAWEICLOUD_OIDC_*, the profile, HC_CONTAINER_* or \
                 upstream.metadata_endpoint), or list the projects and their files under [[projects]]";
    let agent = "HC_CONTAINER_CREDENTIALS_FULL_URI: is missing; it is the URL of the pod identity agent";
    let pod_token = "HC_CONTAINER_AUTHORIZATION_TOKEN_FILE: is missing; it is the file with the token of the pod";
    let cases: Vec<(Environment, Vec<String>)> = vec![
        (
            with(oidc.clone(), &[("HUAWEICLOUD_OIDC_PROVIDER_URN", None)]),
            vec!["HUAWEICLOUD_OIDC_PROVIDER_URN: is missing; it is the URN of the OIDC provider in IAM".into()],
        ),
        (
            with(oidc.clone(), &[("HUAWEICLOUD_OIDC_AGENCY_URN", Some(""))]),
            vec!["HUAWEICLOUD_OIDC_AGENCY_URN: is missing; it is the URN of the trust agency".into()],
        ),
        (
            with(oidc.clone(), &[("HUAWEICLOUD_OIDC_TOKEN_FILE", None)]),
            vec!["HUAWEICLOUD_OIDC_TOKEN_FILE: is missing; it is the file with the OIDC token".into()],
        ),
        (
            with(oidc.clone(), &[("HUAWEICLOUD_SDK_PROJECT_ID", None)]),
            vec![format!("HUAWEICLOUD_SDK_PROJECT_ID: {no_id}")],
        ),
        (with(oidc.clone(), &[("HUAWEICLOUD_SDK_AK", Some("AK"))]), vec![format!("HUAWEICLOUD_SDK_SK: {unset}")]),
        (
            with(oidc.clone(), &[("HUAWEICLOUD_SDK_SECURITY_TOKEN", Some("ST"))]),
            vec![format!("HUAWEICLOUD_SDK_AK: {unset}"), format!("HUAWEICLOUD_SDK_SK: {unset}")],
        ),
        (
            with(oidc.clone(), &[("HUAWEICLOUD_SDK_CREDENTIALS_FILE", Some(&profile))]),
            vec![format!("HUAWEICLOUD_SDK_CREDENTIALS_FILE: {profile} is not a usable profile: [basic] has no `sk`")],
        ),
        (with(oidc, &[("HC_CONTAINER_CREDENTIALS_FULL_URI", Some(AGENT))]), vec![pod_token.into()]),
        (
            with(keys.clone(), &[("HUAWEICLOUD_SDK_CREDENTIALS_FILE", Some("/nowhere"))]),
            vec![{
                "HUAWEICLOUD_SDK_CREDENTIALS_FILE: /nowhere cannot be read: No such file or directory (os error 2)"
                    .into()
            }],
        ),
        (with(keys.clone(), &[("HC_CONTAINER_AUTHORIZATION_TOKEN_FILE", Some("/nowhere"))]), vec![agent.into()]),
        (with(pod.clone(), &[("HC_CONTAINER_CREDENTIALS_FULL_URI", None)]), vec![agent.into()]),
        (with(pod.clone(), &[("HC_CONTAINER_AUTHORIZATION_TOKEN_FILE", Some(""))]), vec![pod_token.into()]),
        (with(pod.clone(), &[("HUAWEICLOUD_SDK_SK", Some("SK"))]), vec![format!("HUAWEICLOUD_SDK_AK: {unset}")]),
        (
            with(pod.clone(), &[("HUAWEICLOUD_SDK_PROJECT_ID", None)]),
            vec![format!("HUAWEICLOUD_SDK_PROJECT_ID: {no_id}")],
        ),
        (
            with(pod, &[(METADATA.0, Some("http://192.0.2.1"))]),
            vec![format!(
                "{}: expects a URL such as \
            \"http://169.254.169.254\": http:// and a link-local or loopback address",
                METADATA.0
            )],
        ),
    ];
    for (environment, expected) in cases {
        assert_eq!(read_invalid("", &environment), expected, "{environment:?}");
    }
    // The agent of an ignored source may be anywhere.
    let elsewhere = with(
        keys,
        &[
            ("HC_CONTAINER_CREDENTIALS_FULL_URI", Some("http://agent.example/")),
            ("HC_CONTAINER_AUTHORIZATION_TOKEN_FILE", Some("/nowhere")),
        ],
    );
    assert_eq!(read_valid("", &elsewhere).warnings.len(), 1);
}

#[test]
fn an_unused_profile_in_the_home_directory_may_only_be_incomplete() {
    for (profile, missing) in [
        ("[basic]\nak = AK\n", Some("sk")),
        ("[basic]\nsk = SK\nak =\n", Some("ak")),
        ("[basic]\nak = AK\nsk = SK\n", None),
        ("[basic]\nidp_id = a\nid_token_file = b\n", None),
        ("[global]\nak = AK\n", None),
        ("# nothing\n", None),
    ] {
        let dir = Dir::new();
        let home = dir.0.path().to_str().expect("UTF-8");
        fs::create_dir(dir.0.path().join(".huaweicloud")).expect("the directory is created");
        dir.file(".huaweicloud/credentials", profile);
        let environment = with(dir.oidc_variables(), &[("HOME", Some(home))]);
        match missing {
            Some(key) => {
                let problems = read_invalid("", &environment);
                let expected = format!("is not a usable profile: [basic] has no `{key}`");
                assert!(problems.len() == 1 && problems[0].ends_with(&expected), "{problems:?}");
            }
            None => assert_eq!(read_valid("", &environment).warnings.len(), 1, "{profile:?} is ignored"),
        }
    }
}

#[test]
fn other_variables_of_the_vendor_are_reported() {
    let dir = Dir::new();
    let refused = with(dir.oidc_variables(), &[("HUAWEICLOUD_OIDC_ID_TOKEN", Some(MARKER))]);
    let expected = "HUAWEICLOUD_OIDC_ID_TOKEN: cannot be renewed; unset it, and set HUAWEICLOUD_OIDC_TOKEN_FILE to the \
                    path of a file with the token";
    assert_eq!(read_invalid("", &refused), [expected]);
    let alone = variables(&[("HUAWEICLOUD_OIDC_ID_TOKEN", MARKER)]);
    let problems = read_invalid("", &alone);
    assert!(problems.len() == 5 && problems[0] == expected, "{problems:#?}");
    assert!(!problems.concat().contains(MARKER));
    let set = with(
        dir.oidc_variables(),
        &[("HUAWEICLOUD_OIDC_ID_TOKEN", Some("")), ("HUAWEICLOUD_SDK_IDP_ID", Some(MARKER))],
    );
    let old = "HUAWEICLOUD_SDK_IDP_ID: is ignored, although the vendor's SDKs use it before AK and SK; the gateway knows OIDC by \
               HUAWEICLOUD_OIDC_* instead";
    assert_eq!(read_valid("", &set).warnings, [old]);
    let alone = variables(&[("HUAWEICLOUD_SDK_PROJECT_ID", "env"), ("HUAWEICLOUD_SDK_IDP_ID", MARKER)]);
    assert!(read_invalid("", &alone).contains(&old.to_owned()), "without another source it is the problem");
    let misspelt = read_invalid("", &with(dir.oidc_variables(), &[("HUAWEICLOUD_OIDC_POLICYIDS", Some(MARKER))]));
    assert!(
        misspelt.len() == 1 && misspelt[0].starts_with("HUAWEICLOUD_OIDC_POLICYIDS: unknown variable; "),
        "{misspelt:?}"
    );
    assert!(misspelt[0].contains("HUAWEICLOUD_OIDC_POLICY_IDS") && !misspelt[0].contains(MARKER), "{misspelt:?}");
    let other = with(dir.pod_variables(), &[("HC_CONTAINER_X", Some(MARKER))]);
    assert_eq!(read_valid("", &other).warnings, ["HC_CONTAINER_X: is unknown and ignored"]);
    let unset = with(dir.pod_variables(), &[("HUAWEICLOUD_SDK_IDP_ID", Some("")), ("HC_CONTAINER_X", Some(""))]);
    assert!(read_valid("", &unset).warnings.is_empty());
}

#[test]
fn variables_are_not_read_with_projects() {
    let dir = Dir::new();
    let set = [
        ("HUAWEICLOUD_OIDC_ID_TOKEN", MARKER),
        ("HUAWEICLOUD_OIDC_PROVIDER_URN", "?"),
        ("HC_CONTAINER_CREDENTIALS_FULL_URI", "?"),
        ("HUAWEICLOUD_SDK_IDP_ID", "?"),
        ("HUAWEICLOUD_SDK_STS_ENDPOINT", "?"),
        ("HUAWEICLOUD_SDK_AK", "?"),
    ];
    let config = read_valid(&dir.project("a"), &variables(&set));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let problems = read_invalid(&dir.oidc_project("a"), &variables(&set));
    assert_eq!(
        problems,
        ["HUAWEICLOUD_SDK_STS_ENDPOINT: expects a URL such as \
                           \"https://sts.cn-north-4.myhuaweicloud.com\": it begins with https:// or http://"]
    );
}

#[test]
fn a_project_has_one_source() {
    let dir = Dir::new();
    let token = dir.token_file();
    let pod =
        format!("[projects.pod_identity]\ncredentials_full_uri = {AGENT:?}\nauthorization_token_file = {token:?}\n");
    let message = |key: &str, first: &str| {
        format!("{key}: is set in addition to `{first}`; a project has one source of credentials")
    };
    let oidc = dir.oidc_project("p");
    assert_eq!(
        read_invalid(&format!("{oidc}{pod}"), &Environment::new()),
        [message("projects[0].pod_identity", "oidc")]
    );
    assert_eq!(
        read_invalid(&format!("{}{pod}", dir.project("p")), &Environment::new()),
        [{ message("projects[0].pod_identity", "ak_file") }]
    );
    let with_token = oidc.replace("[projects.oidc]", &format!("security_token_file = {token:?}\n[projects.oidc]"));
    assert_eq!(
        read_invalid(&format!("{with_token}{pod}"), &Environment::new()),
        [
            message("projects[0].oidc", "security_token_file"),
            message("projects[0].pod_identity", "security_token_file"),
        ]
    );
    let variable = ("SCM_GATEWAY__PROJECTS__0__SK_FILE", token.as_str());
    assert_eq!(read_invalid(&oidc, &variables(&[variable])), [message("projects[0].oidc", "sk_file")]);
    let variable = [("SCM_GATEWAY__PROJECTS__0__POD_IDENTITY__CREDENTIALS_FULL_URI", AGENT)];
    let problems = read_invalid(&oidc, &variables(&variable));
    assert_eq!(problems[1..], [message("projects[0].pod_identity", "oidc")]);
    for wrong in ["oidc = 1", "pod_identity = []"] {
        let problems = read_invalid(&format!("[[projects]]\nid = \"p\"\n{wrong}\n"), &Environment::new());
        assert!(problems[0].contains("expects a table, found a"), "{problems:#?}");
    }
    let unknown = variables(&[("SCM_GATEWAY__PROJECTS__0__OIDC__X", "1"), ("SCM_GATEWAY__PROJECTS__0__OIDCS", "1")]);
    let problems = read_invalid(&dir.oidc_project("p"), &unknown);
    assert!(problems.len() == 2 && problems.iter().all(|line| line.contains(": unknown variable; ")), "{problems:#?}");
}

#[test]
fn an_agency_that_no_project_uses_is_a_warning() {
    let dir = Dir::new();
    let one = dir.oidc_project("a");
    let message = "upstream.metadata_endpoint: has no effect, because every project has another source of credentials";
    assert_eq!(read_valid(&one, &variables(&[METADATA])).warnings, [message]);
    let two = format!("default_project = \"a\"\n{one}[[projects]]\nid = \"b\"\n");
    let config = read_valid(&two, &variables(&[METADATA]));
    let names: Vec<_> = config.projects.iter().map(|project| project.credentials_source.name()).collect();
    assert_eq!((names, config.warnings), (vec!["oidc", "ecs_agency"], vec![]));
}

#[test]
fn values_for_sts_have_the_limits_of_its_api() {
    let dir = Dir::new();
    let longest = "n".repeat(1500 - "iam::account:agency:".len());
    let ids = |count: usize| vec!["a"; count].join(",");
    let policy = |length: usize| format!("{{{}}}", " ".repeat(length - 2));
    let table: Vec<(&str, Vec<String>, Vec<String>)> = vec![
        (
            "PROVIDER_URN",
            vec![PROVIDER.into(), "iam::a:oidcProvider:a:b/c".into(), "iam:*:a:b:c d".into()],
            ["iam", "iam::a:b", "iam::a:b:", "iam:::b:c", "::a:b:c", "iam::a:b c:d", " iam::a:b:c", "iam::a:b:c\n"]
                .map(str::to_owned)
                .into_iter()
                .chain([format!("iam::{}:b:c", "a".repeat(65)), format!("iam::a:b:{}", "c".repeat(1500))])
                .collect(),
        ),
        (
            "AGENCY_URN",
            vec![AGENCY_URN.into(), format!("iam::account:agency:{longest}")],
            ["iam::account:agency:", "iam::account:oidcProvider:x", "iam:r:account:agency:x", "sts::account:agency:x"]
                .map(str::to_owned)
                .into_iter()
                .chain(["iam:::agency:x".into(), format!("iam::account:agency:{longest}n")])
                .collect(),
        ),
        (
            "SESSION_NAME",
            vec!["ab".into(), "a_B9+=,.@-".into(), "s".repeat(128)],
            vec!["a".into(), "a b".into(), "a/b".into(), "ü1".into(), "s".repeat(129)],
        ),
        (
            "DURATION_SECONDS",
            vec!["900".into(), "43200".into()],
            ["899", "43201", "1h", "900.0", "-900", " 900"].map(str::to_owned).into(),
        ),
        (
            "POLICY",
            vec!["{}".into(), policy(4096), r#"{"Version": "5.0"}"#.into()],
            vec!["[]".into(), "1".into(), "{".into(), "{}{}".into(), policy(4097)],
        ),
        (
            "POLICY_IDS",
            vec![ids(20), "a_b-C9, d".into(), "i".repeat(64)],
            vec![ids(21), "a b".into(), "a.b".into(), "i".repeat(65)],
        ),
    ];
    for (key, good, bad) in table {
        let variable = format!("HUAWEICLOUD_OIDC_{key}");
        for value in good {
            read_valid("", &with(dir.oidc_variables(), &[(&variable, Some(&value))]));
        }
        for value in bad {
            let problems = read_invalid("", &with(dir.oidc_variables(), &[(&variable, Some(&value))]));
            assert!(problems.len() == 1 && problems[0].starts_with(&format!("{variable}: expects ")), "{problems:#?}");
            assert!(value.len() < 5 || !problems[0].contains(&value), "{problems:#?}");
        }
    }
    for (value, is_valid) in [("15m", true), ("12h", true), ("899s", false), ("12h 1s", false), ("900s 1ms", false)] {
        let text = format!("{}duration = {value:?}\n", dir.oidc_project("p"));
        assert_eq!(read_on("host", &text, &Environment::new()).is_ok(), is_valid, "{value}");
    }
    let empty = format!("{}policy = \"\"\nsession_name = \"\"\n", dir.oidc_project("p"));
    assert_eq!(read_invalid(&empty, &Environment::new()).len(), 2);
}

#[test]
fn the_session_name_is_the_host_name_if_it_fits() {
    let dir = Dir::new();
    for (host, name) in [
        ("scm-gateway-7c9d-x2", "scm-gateway-7c9d-x2"),
        ("node.example.org", "node.example.org"),
        ("x", "scm-gateway"),
        ("", "scm-gateway"),
        ("h\u{fffd}st", "scm-gateway"),
        (&"h".repeat(129), "scm-gateway"),
    ] {
        let config = read_on(host, &dir.oidc_project("p"), &Environment::new()).expect("the configuration is valid");
        assert_eq!(oidc(&config).session_name, name);
        let shown = config.settings.to_string();
        assert!(shown.contains(&format!("projects[0].oidc.session_name = {name:?}")), "{shown}");
    }
}

#[test]
fn sts_is_that_of_the_region_or_set() {
    let dir = Dir::new();
    let sts = |text: &str, set: &[(&str, &str)]| {
        let environment = variables(set);
        read_on("host", &format!("{text}{}", dir.oidc_project("p")), &environment)
            .map(|config| oidc(&config).sts_endpoint.to_string())
    };
    let regional = |region: &str| Ok(format!("https://sts.{region}.myhuaweicloud.com"));
    let variable = ("HUAWEICLOUD_SDK_STS_ENDPOINT", "https://sts.example:8443/");
    let fixed = Ok("https://sts.example:8443".to_owned());
    assert_eq!(sts("", &[]), regional("cn-north-4"));
    assert_eq!(sts("upstream.region = \"ap-southeast-1\"\n", &[]), regional("ap-southeast-1"));
    assert_eq!(sts("", &[("SCM_GATEWAY__PROJECTS__0__REGION", "ap-southeast-1")]), regional("ap-southeast-1"));
    assert_eq!(sts("", &[("SCM_GATEWAY__UPSTREAM__STS_ENDPOINT", variable.1)]), fixed);
    assert_eq!(sts("", &[variable]), fixed);
    assert_eq!(sts("", &[("HUAWEICLOUD_SDK_STS_ENDPOINT", "")]), regional("cn-north-4"));
    assert_eq!(sts(LOCAL_STS, &[variable]), Ok("http://localhost:1".to_owned()), "the key takes precedence");
    for missing in [
        "upstream.region = \"my-kualalumpur-1\"\n",
        "upstream.endpoint = \"https://scm.cn-north-4.myhuaweicloud.com\"\n",
    ] {
        let problems = sts(missing, &[]).expect_err("there is no STS");
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("upstream.sts_endpoint: is missing; OIDC needs it"), "{problems:?}");
        assert!(problems[0].contains("ap-southeast-1, ap-southeast-2, "), "{problems:?}");
        assert_eq!(sts(missing, &[variable]), fixed);
        let two = format!("default_project = \"a\"\n{missing}{}{}", dir.oidc_project("a"), dir.oidc_project("b"));
        assert_eq!(read_invalid(&two, &Environment::new()), problems, "one problem for two projects");
        let other = format!("{missing}{}", dir.project("a"));
        read_valid(&other, &Environment::new());
        let sdk = read_invalid(missing, &dir.oidc_variables());
        assert_eq!(sdk, problems);
    }
}

#[test]
fn the_endpoint_of_sts_is_safe_and_reported() {
    let dir = Dir::new();
    for value in
        ["http://sts.example", "https://u:p@sts.example", "https://sts.example/v5", "sts.example", "http://169.254.0.1"]
    {
        let text = format!("upstream.sts_endpoint = {value:?}\n{}", dir.oidc_project("p"));
        let problems = read_invalid(&text, &Environment::new());
        assert!(problems.len() == 1 && problems[0].starts_with("upstream.sts_endpoint: expects "), "{problems:?}");
        let problems = read_invalid("", &with(dir.oidc_variables(), &[("HUAWEICLOUD_SDK_STS_ENDPOINT", Some(value))]));
        assert!(problems.len() == 1 && problems[0].starts_with("HUAWEICLOUD_SDK_STS_ENDPOINT: "), "{problems:?}");
    }
    let of_variable = with(dir.oidc_variables(), &[("HUAWEICLOUD_SDK_STS_ENDPOINT", Some("https://sts.example"))]);
    let line = |config: &Config| {
        let settings = config.settings.to_string();
        let line = settings.lines().find(|line| line.starts_with("upstream.sts_endpoint")).unwrap_or_default();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let expected = "upstream.sts_endpoint = \"https://sts.example\" # HUAWEICLOUD_SDK_STS_ENDPOINT";
    assert_eq!(line(&read_valid("", &of_variable)), expected);
    let config = read_valid(LOCAL_STS, &of_variable);
    assert_eq!(
        (line(&config).as_str(), config.warnings),
        ("upstream.sts_endpoint = \"http://localhost:1\" # file", vec![])
    );
    let unused = read_valid(LOCAL_STS, &with_credentials(&[]));
    assert_eq!(unused.warnings, ["upstream.sts_endpoint: has no effect, because no project uses OIDC"]);
    let unused = with_credentials(&[("HUAWEICLOUD_SDK_STS_ENDPOINT", "sts.example")]);
    let config = read_valid("", &unused);
    assert_eq!((line(&config), config.warnings), (String::new(), vec![]));
}

#[test]
fn a_loopback_sts_does_not_need_a_local_proxy() {
    let dir = Dir::new();
    let proxy = "upstream.proxy = \"http://proxy.example:3128\"\n";
    read_valid(&format!("{proxy}{LOCAL_STS}{}", dir.oidc_project("p")), &Environment::new());
}

#[test]
fn agents_over_plain_http_are_local_or_named() {
    let dir = Dir::new();
    let read = |uri: &str, host: Option<&str>| {
        let host = host.map(|host| format!("plain_http_host = {host:?}\n")).unwrap_or_default();
        read_on("host", &(dir.pod_project(uri) + &host), &Environment::new())
    };
    let table = [
        (AGENT, None, "http://127.0.0.1:8080", "/v1/credentials"),
        ("http://localhost/a?b=%2F&c", None, "http://localhost", "/a?b=%2F&c"),
        ("http://[::1]:1//a//", None, "http://[::1]:1", "//a//"),
        ("http://169.254.170.23/v1/credentials", None, "http://169.254.170.23", "/v1/credentials"),
        ("http://[fe80::1]/", None, "http://[fe80::1]", "/"),
        ("HTTPS://Agent.Example", None, "https://agent.example", "/"),
        ("https://10.0.0.1?a", None, "https://10.0.0.1", "/?a"),
        ("http://Agent.example:81/a", Some("aGent.example"), "http://agent.example:81", "/a"),
        ("http://10.0.0.1/a", Some("10.0.0.1"), "http://10.0.0.1", "/a"),
        ("http://[fd00:ec2:0::23]/a", Some("FD00:ec2::23"), "http://[fd00:ec2::23]", "/a"),
    ];
    for (uri, host, endpoint, path) in table {
        let config = read(uri, host).unwrap_or_else(|problems| panic!("{uri}: {problems:#?}"));
        let pod = pod_identity(&config);
        assert_eq!((pod.endpoint.to_string().as_str(), pod.path.as_str()), (endpoint, path));
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    }
    for (uri, host) in [
        ("http://agent.example/a", None),
        ("http://10.0.0.1/a", None),
        ("http://[fd00:ec2::23]/a", None),
        ("http://[::ffff:127.0.0.1]/", None),
        ("http://sub.agent.example/a", Some("agent.example")),
        ("http://agent.example.org/a", Some("agent.example")),
        ("http://u@127.0.0.1/a", None),
        ("http://127.0.0.1/a#b", None),
        ("http://127.0.0.1/a b", None),
        ("http://127.0.0.1/\u{fc}", None),
        ("http://127.0.0.1/\\", Some("x")),
        ("http://127.0.0.1\\@agent.example/", None),
        ("http:///a", None),
        ("127.0.0.1/a", None),
        ("unix:///a", None),
        ("", None),
    ] {
        let problems = read(uri, host).map(|_| ()).expect_err(uri);
        let start = "projects[0].pod_identity.credentials_full_uri: expects ";
        assert!(problems.len() == 1 && problems[0].starts_with(start), "{uri}: {problems:#?}");
        assert!(!problems[0].contains("agent"), "{problems:?}");
    }
    for host in ["", "http://agent.example", "agent.example:80", "agent.example/a", "*.example", "10.0.0.0/8"] {
        let problems = read(AGENT, Some(host)).map(|_| ()).expect_err(host);
        assert!(problems[0].starts_with("projects[0].pod_identity.plain_http_host: expects a host"), "{problems:?}");
    }
    for (uri, host) in [(AGENT, "127.0.0.1"), ("https://agent.example", "agent.example"), (AGENT, "agent.example")] {
        let warning = "projects[0].pod_identity.plain_http_host: is not needed for the host of `credentials_full_uri`";
        assert_eq!(read(uri, Some(host)).expect(uri).warnings, [warning]);
    }
}

#[test]
fn variables_alone_do_not_allow_plain_http() {
    let dir = Dir::new();
    let set = [
        ("HC_CONTAINER_CREDENTIALS_FULL_URI", Some("http://agent.example/a")),
        ("HC_CONTAINER_PLAIN_HTTP_HOST", Some("agent.example")),
    ];
    let problems = read_invalid("", &with(dir.pod_variables(), &set));
    assert_eq!(problems.len(), 1);
    let start = "HC_CONTAINER_CREDENTIALS_FULL_URI: expects https://, or http:// and a loopback or link-local address";
    assert!(problems[0].starts_with(start), "{problems:?}");
    assert!(problems[0].ends_with("name it as `plain_http_host` in [projects.pod_identity]"), "{problems:?}");
}

#[test]
fn unusable_token_files_are_named() {
    let dir = Dir::new();
    let directory = dir.0.path().to_str().expect("UTF-8").to_owned();
    let printable = "must hold printable ASCII only, without whitespace";
    let table = [
        (dir.file("empty", ""), "is empty"),
        (dir.file("ends", "\r\n"), "is empty"),
        (dir.file("whitespace", " \t\n"), "is only whitespace"),
        (dir.file("two", format!("{MARKER} {MARKER}\n")), printable),
        (dir.file("large", MARKER.repeat(20_000)), "is larger than 64 KiB"),
        (dir.file("utf8", "t\u{f6}ken"), printable),
        (directory, "is not a regular file"),
        ("/nowhere".to_owned(), "cannot be read: No such file or directory (os error 2)"),
    ];
    for (path, message) in &table {
        for (variable, set) in [
            ("HUAWEICLOUD_OIDC_TOKEN_FILE", dir.oidc_variables()),
            ("HC_CONTAINER_AUTHORIZATION_TOKEN_FILE", dir.pod_variables()),
        ] {
            let problems = read_invalid("", &with(set, &[(variable, Some(path))]));
            assert_eq!(problems, [format!("{variable}: {path} {message}")]);
        }
        let again = TokenFile::of_oidc(path.into()).read().expect_err("the token is unusable");
        assert_eq!(again, format!("{path} {message}"));
    }
    let long = dir.file("long", "a".repeat(20_001));
    let set = with(dir.oidc_variables(), &[("HUAWEICLOUD_OIDC_TOKEN_FILE", Some(&long))]);
    let message = format!("{long} holds a token of more than 20000 bytes");
    assert_eq!(read_invalid("", &set), [format!("HUAWEICLOUD_OIDC_TOKEN_FILE: {message}")]);
    assert_eq!(TokenFile::of_oidc(long.clone().into()).read().expect_err("the token is long"), message);
    assert!(TokenFile::new(long.into()).read().is_ok());
    let longest = dir.file("longest", format!("\n{}\n", "a".repeat(20_000)));
    assert!(TokenFile::of_oidc(longest.into()).read().is_ok());
    let relative = read_invalid("", &with(dir.oidc_variables(), &[("HUAWEICLOUD_OIDC_TOKEN_FILE", Some(MARKER))]));
    assert!(!relative.concat().contains(MARKER), "{relative:?}");
}

#[test]
fn tokens_that_a_service_would_reject_are_warnings() {
    let dir = Dir::new();
    let open = dir.file_with_mode("open", token(VALID), 0o644);
    let table = [
        (dir.file("no_jwt", format!("{MARKER}\n")), "holds a token that is no JWT".to_owned()),
        (dir.file("expired", token(r#"{"exp":1800000000}"#)), "holds a token that has expired".to_owned()),
        (dir.file("early", token(r#"{"nbf":1800000001}"#)), "holds a token that is not valid yet".to_owned()),
        (open.clone(), format!("{open} is open to everyone on this machine; run `chmod o-rw {open}`")),
    ];
    for (path, message) in table {
        let oidc = with(dir.oidc_variables(), &[("HUAWEICLOUD_OIDC_TOKEN_FILE", Some(&path))]);
        assert_eq!(read_valid("", &oidc).warnings, [format!("HUAWEICLOUD_OIDC_TOKEN_FILE: {message}")]);
        let text = dir.pod_project(AGENT).replace(&dir.token_file(), &path);
        let expected = format!("projects[0].pod_identity.authorization_token_file: {message}");
        assert_eq!(read_valid(&text, &Environment::new()).warnings, [expected]);
    }
}

#[test]
fn the_listing_names_sources_and_tokens() {
    let dir = Dir::new();
    let expired = dir.file("expired", token(r#"{"aud":"a","exp":1799999700}"#));
    let other = dir.file("other", token(r#"{"iss":"\u001b[2J\n"}"#));
    let no_jwt = dir.file("no_jwt", MARKER);
    let with_id = |text: String, id: &str, token: &str| {
        text.replace("id = \"p\"", &format!("id = {id:?}")).replace(&dir.token_file(), token)
    };
    let text = [
        "default_project = \"a\"\n".to_owned(),
        dir.project("a"),
        dir.oidc_project("b"),
        with_id(dir.oidc_project("c"), "c", &expired),
        with_id(dir.pod_project(AGENT), "d", &other),
        with_id(dir.pod_project("https://agent.example/a"), "e", &no_jwt),
        "[[projects]]\nid = \"f\"\n".to_owned(),
    ];
    let config = read_valid(&text.concat(), &variables(&[METADATA]));
    let listing = config.listing();
    let lines: Vec<_> = listing.lines().filter(|line| line.starts_with("project ")).collect();
    let sts = "https://sts.cn-north-4.myhuaweicloud.com";
    assert_eq!(lines, [
        "project a has credentials from files".to_owned(),
        format!(
            "project b has credentials from oidc at {sts}; the token has iss \"https://issuer\", aud \"sts\", sub \
             \"system:serviceaccount:scm:gateway\", expires at 2027-01-15T08:59:50Z, 59m 50s after it was read (not verified)"
        ),
        format!(
            "project c has credentials from oidc at {sts}; the token has iss none, aud \"a\", sub none, expired at \
             2027-01-15T07:55:00Z, 5m before it was read (not verified)"
        ),
        "project d has credentials from pod_identity at http://127.0.0.1:8080; the token has iss \"\\u{1b}[2J\\n\", aud \
         none, sub none, no expiry (not verified)"
            .to_owned(),
        "project e has credentials from pod_identity at https://agent.example; the token is no JWT".to_owned(),
        "project f has credentials from ecs_agency at http://169.254.169.254".to_owned(),
    ]);
    for (set, source) in [(with_credentials(&[]), "environment"), (dir.pod_variables(), "pod_identity")] {
        let listing = read_valid("", &set).listing();
        assert!(listing.contains(&format!("project env has credentials from {source}")), "{listing}");
    }
}

#[test]
fn settings_of_temporary_sources_hold_no_secret() {
    let dir = Dir::new();
    let planted = dir.file("planted", token(&format!("{{\"jti\":{MARKER:?}}}")).replace("c2lnbmF0dXJl", MARKER));
    let set = with(dir.oidc_variables(), &[("HUAWEICLOUD_OIDC_TOKEN_FILE", Some(&planted))]);
    let config = read_valid("", &with(set, &[("HUAWEICLOUD_OIDC_POLICY", Some(r#"{"Version": "5.0"}"#))]));
    let shown = config.settings.to_string();
    for line in [
        format!("HUAWEICLOUD_OIDC_PROVIDER_URN = {PROVIDER:?}"),
        format!("HUAWEICLOUD_OIDC_TOKEN_FILE = {planted:?}"),
        "HUAWEICLOUD_OIDC_DURATION_SECONDS = 900".to_owned(),
        "HUAWEICLOUD_OIDC_POLICY = [JSON, 18 bytes]".to_owned(),
        "HUAWEICLOUD_SDK_PROJECT_ID = \"env\"".to_owned(),
    ] {
        let shown = shown.lines().find(|shown| shown.starts_with(&line)).unwrap_or_else(|| panic!("{line} in {shown}"));
        assert!(shown.ends_with("  # environment"), "{shown}");
    }
    let text = dir.pod_project(&format!("http://127.0.0.1/a?{MARKER}")).replace(&dir.token_file(), &planted);
    let pod = read_valid(&text, &Environment::new());
    assert!(pod.settings.to_string().contains("credentials_full_uri = [REDACTED]"));
    for config in [config, pod] {
        let source = config.projects.default_project().credentials_source.clone();
        let outputs =
            [config.listing(), config.warnings.concat(), format!("{:?}", config.projects.default_project().token)];
        let all = outputs.concat() + &format!("{source:?}");
        assert!(!all.contains(MARKER), "{source:?}: {all}");
    }
}
