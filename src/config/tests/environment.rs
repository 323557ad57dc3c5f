//! Tests of `SCM_GATEWAY__*`, the variables that set keys.

use super::*;

#[test]
fn the_environment_overrides_the_file() {
    let text = "[server]\ndrain = \"1s\"\nreflection = true\n[upstream]\ntimeout = 5\nregion = \"ap-southeast-1\"\n";
    let config = valid(
        text,
        &with_credentials(&[
            ("SCM_GATEWAY__SERVER__DRAIN", "2s"),
            ("SCM_GATEWAY__SERVER__REFLECTION", "false"),
            ("SCM_GATEWAY__UPSTREAM__TIMEOUT", "500ms"),
            ("SCM_GATEWAY__UPSTREAM__ENDPOINT", "http://127.0.0.1:8080"),
            ("SCM_GATEWAY__DEFAULT_PROJECT", "env"),
        ]),
    );
    assert_eq!(config.server.drain, Duration::from_secs(2));
    assert!(!config.server.reflection);
    assert_eq!(config.upstream.timeout, Duration::from_millis(500));
    assert_eq!(config.projects.iter().next().expect("one").endpoint.to_string(), "http://127.0.0.1:8080");
}

#[test]
fn a_region_variable_overrides_an_endpoint_in_the_file() {
    let region = ("SCM_GATEWAY__UPSTREAM__REGION", "ap-southeast-1");
    let config = valid("[upstream]\nendpoint = \"http://[::1]:1\"\n", &with_credentials(&[region]));
    let endpoint = &config.projects.iter().next().expect("one").endpoint;
    assert_eq!(endpoint.authority(), "scm.ap-southeast-1.myhuaweicloud.com");
}

#[test]
fn projects_can_come_from_variables_alone() {
    let dir = Dir::new();
    let key = dir.file("key", "key");
    let mut environment = variables(&[("SCM_GATEWAY__DEFAULT_PROJECT", "p10")]);
    // Eleven, because 10 sorts before 2 as text.
    for index in 0..11 {
        for (name, value) in [("ID", format!("p{index}")), ("AK_FILE", key.clone()), ("SK_FILE", key.clone())] {
            environment.insert(format!("SCM_GATEWAY__PROJECTS__{index}__{name}"), value);
        }
    }
    let config = load(None, &environment).expect("the configuration is valid");
    assert_eq!(config.projects.iter().count(), 11);
    assert_eq!(config.projects.default_project().id, "p10");
}

#[test]
fn variables_change_and_extend_the_projects_of_the_file() {
    let dir = Dir::new();
    let key = dir.file("key", "other");
    let text = format!("default_project = \"b\"\n{}", dir.project("a"));
    let environment = variables(&[
        ("SCM_GATEWAY__PROJECTS__0__SK_FILE", &key),
        ("SCM_GATEWAY__PROJECTS__1__ID", "b"),
        ("SCM_GATEWAY__PROJECTS__1__AK_FILE", &key),
        ("SCM_GATEWAY__PROJECTS__1__SK_FILE", &key),
    ]);
    let config = valid(&text, &environment);
    let first = config.projects.get("a").expect("the project of the file");
    assert_eq!(credentials_of(first).access_key, "AK-a");
    assert_eq!(credentials_of(first).secret_key.expose_secret(), "other");
    assert!(config.projects.get("b").is_some());
}

#[test]
fn unknown_variables_are_reported() {
    let environment = with_credentials(&[
        ("SCM_GATEWAY__UPSTREAM__TIMEOUTS", MARKER),
        ("SCM_GATEWAY__UPSTREAM__TIMEOUT__X", MARKER),
        ("SCM_GATEWAY__PROJECTS__3__ID", MARKER),
        ("SCM_GATEWAY__server__listen", MARKER),
        ("SCM_GATEWAY__LISTEN", MARKER),
        ("SCM_GATEWAY__ADMIN", MARKER),
        // Kubernetes sets these for a Service called scm-gateway.
        ("SCM_GATEWAY_PORT", "tcp://10.0.0.1:50051"),
    ]);
    let problems = load(None, &environment).expect_err("the configuration is invalid").to_string();
    for name in ["UPSTREAM__TIMEOUTS", "UPSTREAM__TIMEOUT__X", "PROJECTS__3__ID", "server__listen", "LISTEN"] {
        assert!(problems.contains(&format!("SCM_GATEWAY__{name}: unknown variable; ")), "{name}: {problems}");
    }
    assert!(problems.contains("SCM_GATEWAY__ADMIN: expects a table, found text"));
    assert_eq!(problems.lines().count(), 6, "{problems}");
    assert!(!problems.contains(MARKER));
}

#[test]
fn invalid_utf8_is_reported_for_known_variables_only() {
    let not_utf8 = || OsString::from_vec(vec![b'/', 0xff]);
    let names = ["SCM_GATEWAY__UPSTREAM__CA_FILE", "HUAWEICLOUD_SDK_AK", "OTHER"].map(OsString::from);
    let mut environment = environment(names.into_iter().map(|name| (name, not_utf8())));
    environment.insert("HUAWEICLOUD_SDK_SK".into(), "key".into());
    environment.insert("HUAWEICLOUD_SDK_PROJECT_ID".into(), "id".into());
    let expected = "SCM_GATEWAY__UPSTREAM__CA_FILE: is not UTF-8\n\
                    HUAWEICLOUD_SDK_AK: must hold printable ASCII only, without whitespace";
    assert_eq!(load(None, &environment).expect_err("the configuration is invalid").to_string(), expected);
}
