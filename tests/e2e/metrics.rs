//! The page `/metrics`: its formats, the metrics of the process and of retries, and the tables in docs/telemetry.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::MetadataExt as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use scm_emulator::{Emulator, Reply, SAMPLE_PROJECT, Step};
use scm_gateway::clock::Clock;
use tokio::net::TcpStream;

use crate::harness::{
    Gateway, client, emulator, environment, folder::Folder, process::Process, sample, seen, until, value_of,
};

const ACCEPT_OF_PROMETHEUS: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
    application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
    text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

/// Returns the retries so far by their reason.
async fn retries(gateway: &Gateway) -> [u64; 3] {
    let (_, page) = gateway.admin("/metrics").await;
    let of = |reason: &str| {
        let labels = format!("scm_project_id=\"{SAMPLE_PROJECT}\",scm_reason=\"{reason}\"");
        value_of(&page, &format!("scm_gateway_retries_total{{{labels}"))
    };
    let found = page.lines().filter(|line| line.starts_with("scm_gateway_retries_total{")).count();
    assert_eq!(found, 3, "{page}");
    ["UPSTREAM_UNAVAILABLE", "UPSTREAM_TIMEOUT", "UPSTREAM_CREDENTIALS"].map(of)
}

#[tokio::test]
async fn retries_are_counted_by_the_reason_before() {
    let emulator = emulator().await;
    let variables =
        [("SCM_GATEWAY__UPSTREAM__ATTEMPT_TIMEOUT", "200ms"), ("SCM_GATEWAY__UPSTREAM__CIRCUIT_MAX_FAILURES", "1000")];
    let gateway = Gateway::with(&emulator, &variables).await;
    assert_eq!(retries(&gateway).await, [0, 0, 0], "series exist from the start");
    gateway.save(sample()).await.unwrap();
    let status = |status| Step::Reply(Reply::json(status, "{}"));
    let table = [
        (vec![], true, [0, 0, 0]),
        (vec![status(503)], true, [1, 0, 0]),
        (vec![Step::Close, status(504)], true, [1, 1, 0]),
        (vec![Step::Hang], true, [0, 1, 0]),
        (vec![status(500)], false, [0, 0, 0]),
        (vec![Step::Close, Step::Close, Step::Close], false, [2, 0, 0]),
    ];
    let mut total = [0; 3];
    for (row, (steps, succeeds, counted)) in table.into_iter().enumerate() {
        emulator.scripts(steps);
        let before = emulator.attempts();
        assert_eq!(gateway.save(sample()).await.is_ok(), succeeds, "row {row}");
        total = std::array::from_fn(|reason| total[reason] + counted[reason]);
        assert_eq!(retries(&gateway).await, total, "row {row}");
        assert_eq!(counted.iter().sum::<u64>() + 1, (emulator.attempts() - before) as u64, "row {row}");
    }
    assert_eq!(gateway.metric::<u64>("scm_gateway_retry_budget_exhausted_total").await, 0);
    let (before, calls) = (emulator.attempts(), 50);
    emulator.scripts((0..3 * calls).map(|_| status(503)));
    let mut prevented = 0;
    for _ in 0..calls {
        let status = gateway.save(sample()).await.unwrap_err();
        prevented += usize::from(seen(&status).metadata["attempts"] != "3");
    }
    let attempts = emulator.attempts() - before;
    let exhausted = gateway.metric::<usize>("scm_gateway_retry_budget_exhausted_total").await;
    assert!(prevented > 0 && exhausted == prevented, "{exhausted} of {prevented}");
    assert_eq!(retries(&gateway).await[0], total[0] + (attempts - calls) as u64);
}

/// The budget is asked for the retry of a slow attempt at its timeout, and again if it fails later.
#[tokio::test]
async fn prevented_retries_of_slow_attempts_are_counted_once() {
    const CALLS: usize = 40;
    let variables = [
        ("SCM_GATEWAY__UPSTREAM__ATTEMPTS", "2"),
        ("SCM_GATEWAY__UPSTREAM__ATTEMPT_TIMEOUT", "100ms"),
        ("SCM_GATEWAY__UPSTREAM__TIMEOUT", "2s"),
        ("SCM_GATEWAY__UPSTREAM__CIRCUIT_MAX_FAILURES", "1000"),
    ];
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n".to_vec();
    let fails_late = Step::Drip { head, bytes: b"{".to_vec(), every: Duration::from_millis(400) };
    for step in [Step::Hang, fails_late] {
        let emulator = emulator().await;
        let gateway = Gateway::with(&emulator, &variables).await;
        gateway.save(sample()).await.unwrap();
        emulator.scripts((0..2 * CALLS).map(|_| step.clone()));
        let results = futures_util::future::join_all((0..CALLS).map(|_| gateway.save(sample()))).await;
        assert!(results.iter().all(Result::is_err));
        let made = emulator.attempts() - 1 - CALLS;
        assert!(made > 0 && made < CALLS, "{made} retries");
        let exhausted = async || gateway.metric::<usize>("scm_gateway_retry_budget_exhausted_total").await;
        until("the ends of the calls", || async { exhausted().await >= CALLS - made }).await;
        assert_eq!(exhausted().await, CALLS - made, "{step:?}");
    }
}

#[tokio::test]
async fn a_request_signed_again_counts_as_a_retry() {
    let emulator = emulator().await;
    let time = || SystemTime::now() - Duration::from_secs(1200);
    let gateway = Gateway::start(environment(&emulator.endpoint(), &[]), Clock::from_fn(time)).await;
    for _ in 0..2 {
        gateway.save(sample()).await.unwrap();
        assert_eq!(retries(&gateway).await, [0, 0, 1]);
    }
}

/// Returns the field of a file in the process's folder of `/proc`.
fn field(process: &Process, file: &str, name: &str) -> f64 {
    let text = std::fs::read_to_string(process.proc(file)).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn process_metrics_are_served_without_root() {
    const CONNECTIONS: usize = 20;
    let (emulator, folder) = (emulator().await, Folder::new());
    let process = Process::without_root(&folder, &emulator.endpoint(), &[]).await;
    assert_ne!(field(&process, "status", "Uid:"), 0.0);
    let owner = std::fs::metadata(process.proc("stat")).unwrap().uid();
    assert_eq!(owner, 0, "the process is not dumpable");
    client(&process.address).await.save_info(sample()).await.unwrap();

    let page = process.metrics().await;
    let value = |page: &str, name: &str| value_of::<f64>(page, &format!("{name} "));
    let is_near = |name: &str, expected: f64| {
        let value = value(&page, name);
        assert!((value / expected - 1.0).abs() < 0.3, "{name} {value}, not {expected}");
    };
    is_near("process_resident_memory_bytes", field(&process, "status", "VmRSS:") * 1024.0);
    is_near("process_virtual_memory_bytes", field(&process, "status", "VmSize:") * 1024.0);
    is_near("process_max_fds", field(&process, "limits", "Max open files"));
    is_near("process_threads", field(&process, "status", "Threads:"));
    let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
        - value(&page, "process_start_time_seconds");
    assert!((0.0..60.0).contains(&age), "started {age} s ago");
    let cpu = value(&page, "process_cpu_seconds_total");
    assert!((0.0..60.0).contains(&cpu), "{cpu} s");

    let accepted = process.accepted_connections();
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(TcpStream::connect(&process.address).await.unwrap());
    }
    until("the connections", || async { process.accepted_connections() == accepted + CONNECTIONS }).await;
    let added = value(&process.metrics().await, "process_open_fds") - value(&page, "process_open_fds");
    assert!((added - CONNECTIONS as f64).abs() <= 2.0, "{added} further descriptors");

    let stat = std::fs::read_to_string(process.proc("stat")).unwrap();
    let ticks: f64 =
        stat.rsplit(") ").next().unwrap().split(' ').skip(11).take(2).map(|t| t.parse::<f64>().unwrap()).sum();
    let later = value(&process.metrics().await, "process_cpu_seconds_total");
    assert!(later >= ticks / 100.0 && later >= cpu, "{later} s after {cpu} s and {ticks} hundredths");
}

/// Returns content type and body of `/metrics`.
async fn scrape(process: &Process, method: reqwest::Method, accept: Option<&str>) -> (String, String) {
    let mut request = reqwest::Client::new().request(method, format!("http://{}/metrics", process.admin));
    if let Some(accept) = accept {
        request = request.header("accept", accept);
    }
    let response = request.send().await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    (content_type, response.text().await.unwrap())
}

/// Returns the series of a page, without their values.
fn series(page: &str) -> BTreeSet<String> {
    page.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

#[tokio::test]
async fn prometheus_gets_open_metrics_and_others_text() {
    const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let emulator = emulator().await;
    let process = Process::start(&emulator.endpoint(), &[]).await;
    client(&process.address).await.save_info(sample()).await.unwrap();
    let (content_type, text) = scrape(&process, reqwest::Method::GET, None).await;
    assert!(content_type == TEXT && !text.contains("# EOF"), "{content_type}");
    let (content_type, open_metrics) = scrape(&process, reqwest::Method::GET, Some(ACCEPT_OF_PROMETHEUS)).await;
    assert!(content_type == OPEN_METRICS && open_metrics.ends_with("\n# EOF\n"), "{content_type}");
    for line in [
        "# TYPE rpc_server_call_duration_seconds histogram",
        "# UNIT rpc_server_call_duration_seconds seconds",
        "# TYPE scm_gateway_retries counter",
        "# TYPE process_cpu_seconds counter",
        "# UNIT process_resident_memory_bytes bytes",
    ] {
        assert!(open_metrics.lines().any(|other| other == line), "{line} in {open_metrics}");
    }
    let is_bound = |line: &str| line.contains("le=\"");
    assert!(series(&open_metrics).iter().any(|series| series.ends_with("le=\"1.0\"}")));
    let without_bounds = |page| series(page).into_iter().filter(|line| !is_bound(line)).collect::<BTreeSet<_>>();
    assert_eq!(without_bounds(&open_metrics), without_bounds(&text));
    assert_eq!(series(&open_metrics).len(), series(&text).len());
    for (accept, expected) in [(None, TEXT), (Some(ACCEPT_OF_PROMETHEUS), OPEN_METRICS)] {
        let (content_type, body) = scrape(&process, reqwest::Method::HEAD, accept).await;
        assert_eq!((content_type.as_str(), body.as_str()), (expected, ""));
    }
}

/// Returns the cells of the rows of the first table after a line of docs/telemetry.md.
fn table(after: &str) -> Vec<Vec<&'static str>> {
    const PAGE: &str = include_str!("../../docs/telemetry.md");
    let lines = PAGE.lines().skip_while(|line| !line.starts_with(after)).skip_while(|line| !line.starts_with('|'));
    let cells = |line: &'static str| {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().trim_matches('`')).collect()
    };
    lines.take_while(|line| line.starts_with('|')).skip(2).map(cells).collect()
}

#[tokio::test]
async fn served_metrics_are_documented() {
    let emulator: Emulator = emulator().await;
    let process = Process::start(&emulator.endpoint(), &[]).await;
    client(&process.address).await.save_info(sample()).await.unwrap();
    let page = process.metrics().await;
    let documented: BTreeMap<_, _> = table("## Metrics").into_iter().map(|row| (row[3], row)).collect();
    let described: BTreeSet<_> = table("Labels at").into_iter().map(|row| row[0]).collect();
    assert_eq!(documented.keys().copied().collect::<BTreeSet<_>>(), described);

    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    for (name, kind) in types {
        let row = documented.get(name).unwrap_or_else(|| panic!("{name} is not in docs/telemetry.md"));
        assert_eq!(kind, row[1].replace("up-down counter", "gauge"), "{name}");
        let suffix = match row[2] {
            "s" => "_seconds",
            "byte" => "_bytes",
            _ => "",
        };
        let total = if kind == "counter" { "_total" } else { "" };
        assert!(name.ends_with(&format!("{suffix}{total}")), "{name}");
        if row[0].contains('.') {
            assert_eq!(name, format!("{}{suffix}{total}", row[0].replace('.', "_")));
        }
    }
}
