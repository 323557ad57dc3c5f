//! `[server]`.

use super::*;

#[test]
fn plain_text_stays_on_the_machine_unless_allowed() {
    for open in ["0.0.0.0:50051", "[::]:50051", "192.0.2.1:1"] {
        let problem = problem(&format!("[server]\nlisten = \"{open}\""));
        assert!(problem.starts_with("server.listen: would take calls in plain text"), "{problem}");
        assert!(problem.contains("set server.plaintext = true"));
        good(&format!("[server]\nplaintext = true\nlisten = \"{open}\""), &with_key(&[]));
    }
    for closed in ["127.8.8.8:0", "[::1]:1", "unix:/run/scm-gateway.sock"] {
        good(&format!("[server]\nlisten = \"{closed}\""), &with_key(&[]));
        good(&format!("[server]\nplaintext = true\nlisten = \"{closed}\""), &with_key(&[]));
    }
    let open = ("SCM_GATEWAY__SERVER__LISTEN", "0.0.0.0:1");
    let problems = problems("", &with_key(&[open]));
    assert!(problems[0].starts_with("SCM_GATEWAY__SERVER__LISTEN: would take"), "{problems:?}");
    good("", &with_key(&[open, ("SCM_GATEWAY__SERVER__PLAINTEXT", "true")]));
    good("[admin]\nlisten = \"0.0.0.0:9464\"", &with_key(&[]));
}

#[test]
fn a_socket_has_an_absolute_path_of_bearable_length() {
    let config = good("[server]\nlisten = \"unix:/run/x.sock\"", &with_key(&[]));
    assert_eq!(config.server.listen, Listen::Unix(PathBuf::from("/run/x.sock")));
    good(&format!("[server]\nlisten = \"unix:/{}\"", "x".repeat(106)), &with_key(&[]));
    for bad in ["unix:".to_owned(), "unix:x.sock".to_owned(), format!("unix:/{}", "x".repeat(107))] {
        let problem = problem(&format!("[server]\nlisten = \"{bad}\""));
        assert_eq!(problem, "server.listen: expects an absolute path of at most 107 bytes after \"unix:\"");
    }
}

#[test]
fn half_of_everything_is_ones_share_and_all_of_it_if_there_is_no_other() {
    let shares = |file: &str, variables: &[(&str, &str)]| {
        let server = good(file, &with_key(variables)).server;
        (server.max_in_flight_per_caller, server.max_in_flight_per_project, server.connections.max_per_caller)
    };
    let base = [
        ("SCM_GATEWAY__SERVER__TRUST_XFCC", "true"),
        ("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", "7"),
        ("SCM_GATEWAY__SERVER__MAX_CONNECTIONS", "5"),
    ];
    assert_eq!(shares("", &base), (4, 7, 3), "without a list there may be any number of callers");
    let one = "[[callers]]\nidentity = \"a\"\nmethods = [\"SaveInfo\"]\nprojects = [\"*\"]\n";
    assert_eq!(shares(one, &base), (7, 7, 5));
    let more = [
        ("SCM_GATEWAY__CALLERS__1__IDENTITY", "b"),
        ("SCM_GATEWAY__CALLERS__1__METHODS", "SaveInfo"),
        ("SCM_GATEWAY__CALLERS__1__PROJECTS", "*"),
    ];
    assert_eq!(shares(one, &[&base[..], &more].concat()), (4, 7, 3));
    let server = |file: &str| good(file, &with_key(&base)).server;
    let unfinished = |file| [server(file).memory_quota.total, server(file).memory_quota.per_caller].map(|b| b >> 20);
    assert_eq!(unfinished(""), [64, 32]);
    assert_eq!(unfinished(one), [64, 64]);
    assert_eq!(unfinished("[server]\nmemory_quota = \"5MiB\""), [5, 3], "in whole MiB");
    let many = load(None, &with_key(&[("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", "10000")])).expect("a configuration");
    assert_eq!(many.server.memory_quota.total, 313 << 20, "room for twice as many calls");
    let config = good(
        "[server]\nmax_in_flight = 65\nmax_in_flight_per_project = 66\nlame_duck = \"11s\"\n\
         memory_quota = \"1MiB\"\nmemory_quota_per_caller = \"2MiB\"",
        &with_key(&[]),
    );
    assert_eq!(config.server.memory_quota.per_caller, 1 << 20);
    assert_eq!((config.server.max_in_flight_per_project, config.server.lame_duck), (65, secs(10)));
    assert_eq!(
        config.warnings,
        [
            "server.lame_duck: is more than half of drain; it will be 10s",
            "server.max_in_flight_per_project: is more than all may have together; it will be 65",
            "server.memory_quota: has room for 64 calls, fewer than max_in_flight",
            "server.memory_quota_per_caller: is more than all may have together; it will be 1MiB",
        ]
    );
}
