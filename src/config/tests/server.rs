//! Tests of `[server]`.

use super::*;

#[test]
fn remote_plaintext_has_to_be_allowed() {
    for open in ["0.0.0.0:50051", "[::]:50051", "192.0.2.1:1"] {
        let problem = problem(&format!("[server]\nlisten = \"{open}\""));
        assert!(problem.starts_with("server.listen: would take calls in plain text"), "{problem}");
        assert!(problem.contains("set server.plaintext = true"));
        valid(&format!("[server]\nplaintext = true\nlisten = \"{open}\""), &with_credentials(&[]));
    }
    for closed in ["127.8.8.8:0", "[::1]:1", "unix:/run/scm-gateway.sock"] {
        valid(&format!("[server]\nlisten = \"{closed}\""), &with_credentials(&[]));
        valid(&format!("[server]\nplaintext = true\nlisten = \"{closed}\""), &with_credentials(&[]));
    }
    let open = ("SCM_GATEWAY__SERVER__LISTEN", "0.0.0.0:1");
    let problems = problems("", &with_credentials(&[open]));
    assert!(problems[0].starts_with("SCM_GATEWAY__SERVER__LISTEN: would take"), "{problems:?}");
    valid("", &with_credentials(&[open, ("SCM_GATEWAY__SERVER__PLAINTEXT", "true")]));
    valid("[admin]\nlisten = \"0.0.0.0:9464\"", &with_credentials(&[]));
}

#[test]
fn socket_paths_are_absolute_and_limited() {
    let config = valid("[server]\nlisten = \"unix:/run/x.sock\"", &with_credentials(&[]));
    assert_eq!(config.server.listen, Listen::Unix(PathBuf::from("/run/x.sock")));
    valid(&format!("[server]\nlisten = \"unix:/{}\"", "x".repeat(106)), &with_credentials(&[]));
    for invalid in ["unix:".to_owned(), "unix:x.sock".to_owned(), format!("unix:/{}", "x".repeat(107))] {
        let problem = problem(&format!("[server]\nlisten = \"{invalid}\""));
        assert_eq!(problem, "server.listen: expects an absolute path of at most 107 bytes after \"unix:\"");
    }
}

#[test]
fn connection_memory_follows_the_connections() {
    for (connections, quota, mib) in [(1, 1, 64), (1000, 64, 64), (2048, 64, 128), (1000, 256, 256)] {
        let default = crate::config::server::default_connection_memory(connections, quota << 20);
        assert_eq!(default >> 20, mib, "{connections} {quota}");
    }
    let config = valid("[server]\nconnection_memory_quota = \"8MiB\"", &with_credentials(&[]));
    assert_eq!(config.server.connections.memory_quota, 8 << 20);
}

#[test]
fn a_single_caller_or_project_may_use_the_whole_limit() {
    let limits = |file: &str, variables: &[(&str, &str)]| {
        let server = valid(file, &with_credentials(variables)).server;
        (server.max_in_flight_per_caller, server.max_in_flight_per_project, server.connections.max_per_caller)
    };
    let base = [
        ("SCM_GATEWAY__SERVER__TRUST_XFCC", "true"),
        ("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", "7"),
        ("SCM_GATEWAY__SERVER__MAX_CONNECTIONS", "5"),
    ];
    assert_eq!(limits("", &base), (4, 7, 3), "without a list the number of callers is unknown");
    let one = "[[callers]]\nidentity = \"a\"\nmethods = [\"SaveInfo\"]\nprojects = [\"*\"]\n";
    assert_eq!(limits(one, &base), (7, 7, 5));
    let more = [
        ("SCM_GATEWAY__CALLERS__1__IDENTITY", "b"),
        ("SCM_GATEWAY__CALLERS__1__METHODS", "SaveInfo"),
        ("SCM_GATEWAY__CALLERS__1__PROJECTS", "*"),
    ];
    assert_eq!(limits(one, &[&base[..], &more].concat()), (4, 7, 3));
    let server = |file: &str| valid(file, &with_credentials(&base)).server;
    let quota = |file| [server(file).memory_quota.total, server(file).memory_quota.per_caller].map(|b| b >> 20);
    assert_eq!(quota(""), [64, 32]);
    assert_eq!(quota(one), [64, 64]);
    assert_eq!(quota("[server]\nmemory_quota = \"5MiB\""), [5, 3], "rounded up to MiB");
    let many = load(None, &with_credentials(&[("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", "10000")]))
        .expect("the configuration is valid");
    assert_eq!(many.server.memory_quota.total, 313 << 20, "enough for twice as many calls");
    let config = valid(
        "[server]\nmax_in_flight = 65\nmax_in_flight_per_project = 66\nlame_duck = \"11s\"\n\
         memory_quota = \"1MiB\"\nmemory_quota_per_caller = \"2MiB\"",
        &with_credentials(&[]),
    );
    assert_eq!(config.server.memory_quota.per_caller, 1 << 20);
    assert_eq!((config.server.max_in_flight_per_project, config.server.lame_duck), (65, secs(10)));
    let warning = "server.connection_memory_quota: is not enough for max_connections, so idle ones will be closed";
    let few = valid("[server]\nconnection_memory_quota = \"10MiB\"", &with_credentials(&[]));
    assert_eq!(few.warnings, [warning]);
    assert_eq!(
        config.warnings,
        [
            "server.lame_duck: is more than half of drain; it will be 10s",
            "server.max_in_flight_per_project: is more than all may have together; it will be 65",
            "server.memory_quota: is enough for 64 calls, fewer than max_in_flight",
            "server.memory_quota_per_caller: is more than all may have together; it will be 1MiB",
        ]
    );
}
