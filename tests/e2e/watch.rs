//! WatchCertificate over real sockets. The hub's own tests are in `src/watch/tests.rs`.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use prost::Message as _;
use scm_emulator::{Emulator, Options, Reply, SAMPLE_PROJECT, Step};
use scm_gateway::{
    grpc::service::certificate_service_client::CertificateServiceClient,
    proto::{WatchCertificateRequest, WatchCertificateResponse},
};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::timeout};
use tonic::{Code, Request, Status, Streaming, transport::Channel};
use tonic_types::StatusExt as _;

use crate::harness::{
    CERT, Gateway, assert_status, client, emulator, fields, framed,
    otlp_sink::Sink,
    process::Process,
    raw::{DATA, END_HEADERS, END_STREAM, HEADERS, Received, call_of, frame, preface, send_until},
    sample, seen, until,
};

const ORDERS: &str = "spiffe://example.org/ns/web/sa/orders";

/// Polls come as often as the configuration allows.
const FAST: (&str, &str) = ("SCM_GATEWAY__WATCH__INTERVAL", "100ms");

/// A failed attempt is a failed poll.
const ONE_ATTEMPT: (&str, &str) = ("SCM_GATEWAY__UPSTREAM__ATTEMPTS", "1");

const TIMEOUT: Duration = Duration::from_secs(30);

/// Returns SCM's answer about a certificate in this status.
fn show(status: &str) -> Step {
    Step::Reply(Reply::json(200, &json!({"id": CERT, "status": status}).to_string()))
}

fn failure(status: u16, code: &str) -> Step {
    Step::Reply(Reply::json(status, &json!({"error_code": code, "error_msg": "text"}).to_string()))
}

/// Starts an emulator that applies this step to each request for the certificate without another one.
async fn emulator_with(step: Step) -> Emulator {
    Emulator::start(Options { steps: vec![(CERT.to_owned(), step)], ..Options::default() }).await.unwrap()
}

fn request() -> WatchCertificateRequest {
    WatchCertificateRequest { project_id: String::new(), cert_id: CERT.into() }
}

/// Returns a request that a sidecar forwards for this caller.
fn request_of(caller: &str) -> Request<WatchCertificateRequest> {
    let mut request = Request::new(request());
    request.metadata_mut().insert("x-forwarded-client-cert", format!("URI={caller}").parse().unwrap());
    request
}

type Watch = Streaming<WatchCertificateResponse>;

async fn watch(client: &CertificateServiceClient<Channel>) -> Watch {
    client.clone().watch_certificate(request()).await.unwrap().into_inner()
}

/// Returns the status of the certificate in the next response, or `None` at the end.
async fn next(watch: &mut Watch) -> Result<Option<String>, Status> {
    let message = timeout(TIMEOUT, watch.message()).await.expect("a response in time")?;
    Ok(message.map(|response| response.certificate.unwrap().status))
}

/// Returns the statuses of all responses, and the error at the end.
async fn rest(watch: &mut Watch) -> (Vec<String>, Option<Status>) {
    let mut statuses = Vec::new();
    loop {
        match next(watch).await {
            Ok(Some(status)) => statuses.push(status),
            Ok(None) => return (statuses, None),
            Err(error) => return (statuses, Some(error)),
        }
    }
}

/// Returns the start of the series that counts polls with this outcome.
fn polls_ended(outcome: &str) -> String {
    format!("scm_gateway_watches_polls_total{{outcome=\"{outcome}\"")
}

#[tokio::test]
async fn changes_are_sent_until_a_final_status() {
    let emulator = emulator().await;
    let proof = json!({"id": CERT, "status": "CHECKING_DOMAIN", "authentification": [{"record_name": "_dnsauth"}]});
    emulator.scripts([
        show("PAID"),
        show("PAID"),
        show("CHECKING_DOMAIN"),
        Step::Reply(Reply::json(200, &proof.to_string())),
        show("ISSUED"),
    ]);
    let gateway = Gateway::with(&emulator, &[FAST]).await;
    let (statuses, error) = rest(&mut watch(&gateway.client).await).await;
    assert_eq!(statuses, ["PAID", "CHECKING_DOMAIN", "CHECKING_DOMAIN", "ISSUED"]);
    assert!(error.is_none(), "{error:?}");
    let sent = emulator.journal();
    assert_eq!(sent.len(), 5);
    let line = format!("/v3/scm/certificates/{CERT}");
    assert!(sent.iter().all(|sent| (sent.method.as_str(), sent.target.as_str()) == ("GET", line.as_str())));
}

#[tokio::test]
async fn a_thousand_watchers_cost_one_request_per_interval() {
    const INTERVAL: Duration = Duration::from_secs(1);
    let emulator = emulator_with(show("PAID")).await;
    let variables = [
        ("SCM_GATEWAY__WATCH__INTERVAL", "1s"),
        ("SCM_GATEWAY__SERVER__MAX_CONCURRENT_STREAMS", "1100"),
        ("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", "2"),
        ("SCM_GATEWAY__SERVER__MEMORY_QUOTA", "1MiB"),
    ];
    let gateway = Gateway::with(&emulator, &variables).await;
    let started = Instant::now();
    let mut watches = Vec::new();
    for _ in 0..1000 {
        watches.push(watch(&gateway.client).await);
    }
    for watch in &mut watches {
        assert_eq!(next(watch).await.unwrap().as_deref(), Some("PAID"));
    }
    assert_eq!(gateway.metric::<usize>("scm_gateway_watches_open").await, 1000);
    let one_too_many = gateway.client.clone().watch_certificate(request()).await.unwrap_err();
    assert_status(&one_too_many, Code::ResourceExhausted, "OVERLOADED", None);
    assert!(one_too_many.get_error_details().retry_info().is_some());
    gateway.save(sample()).await.unwrap_err(); // SCM's answer is that of a certificate, so the call was not shed

    let before = emulator.attempts();
    emulator.wait_for_attempts(before + 3).await;
    let polls = emulator.attempts() - 1;
    let most = started.elapsed().as_secs_f64() / INTERVAL.mul_f64(0.9).as_secs_f64();
    assert!(polls as f64 <= most + 1.0, "{polls} polls, at most {most}");

    emulator.script(show("ISSUED"));
    let ends = join_all(watches.iter_mut().map(rest)).await;
    assert!(ends.iter().all(|(statuses, error)| *statuses == ["ISSUED"] && error.is_none()), "{ends:?}");
    until("the watches to end", async || gateway.metric::<usize>("scm_gateway_watches_open").await == 0).await;
    let polls: usize = emulator.journal().iter().filter(|sent| sent.method == "GET").count();
    let counted = async |outcome| gateway.metric::<usize>(&polls_ended(outcome)).await;
    assert_eq!((counted("changed").await, counted("unchanged").await), (2, polls - 2));
}

#[tokio::test]
async fn a_second_watcher_needs_no_poll() {
    let emulator = emulator_with(show("PAID")).await;
    let gateway = Gateway::of(&emulator).await; // a poll every 30 s
    for _ in 0..3 {
        assert_eq!(next(&mut watch(&gateway.client).await).await.unwrap().as_deref(), Some("PAID"));
    }
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(watch(&gateway.client).await);
        assert_eq!(next(open.last_mut().unwrap()).await.unwrap().as_deref(), Some("PAID"));
    }
    assert!((1..=4).contains(&emulator.attempts()), "{}", emulator.attempts());
    let before = emulator.attempts();
    open.push(watch(&gateway.client).await);
    assert_eq!(next(open.last_mut().unwrap()).await.unwrap().as_deref(), Some("PAID"));
    assert_eq!(emulator.attempts(), before);
}

#[tokio::test]
async fn errors_that_may_pass_do_not_end_a_watch() {
    for step in [
        failure(503, "SCM.9999"),
        failure(504, "SCM.9999"),
        failure(500, "SCM.9999"),
        failure(429, "APIG.0308"),
        Step::Close,
    ] {
        let emulator = emulator_with(show("ISSUED")).await;
        emulator.script(step.clone());
        let gateway = Gateway::with(&emulator, &[FAST, ONE_ATTEMPT]).await;
        let (statuses, error) = rest(&mut watch(&gateway.client).await).await;
        assert_eq!((statuses, error.is_none()), (vec!["ISSUED".to_owned()], true), "{step:?}");
        assert_eq!(emulator.attempts(), 2, "{step:?}");
        // After a 429, polls are also rejected without a request until the cooldown is over.
        assert!(gateway.metric::<u64>(&polls_ended("failed")).await >= 1, "{step:?}");
    }
}

#[tokio::test]
async fn other_errors_end_all_watches_with_their_status() {
    for (step, code, reason, upstream_code) in [
        (failure(400, "SCM.0008"), Code::NotFound, "CERTIFICATE_NOT_FOUND", Some("SCM.0008")),
        (failure(400, "SCM.0003"), Code::PermissionDenied, "CERTIFICATE_NOT_OWNED", Some("SCM.0003")),
        (failure(403, "SCM.0002"), Code::FailedPrecondition, "UPSTREAM_ACCOUNT", Some("SCM.0002")),
        (failure(404, "APIG.0101"), Code::Internal, "UPSTREAM_CONFIGURATION", Some("APIG.0101")),
        (Step::Reply(Reply::json(200, "no JSON")), Code::Internal, "UPSTREAM_MALFORMED", None),
    ] {
        let emulator = emulator_with(step).await;
        emulator.script(show("PAID"));
        let gateway = Gateway::with(&emulator, &[FAST]).await;
        let (mut first, mut second) = (watch(&gateway.client).await, watch(&gateway.client).await);
        for watch in [&mut first, &mut second] {
            let (_, error) = rest(watch).await;
            let error = error.expect("an error ends the watch");
            assert_status(&error, code, reason, Some(1));
            assert_eq!(seen(&error).metadata.get("upstream_code").map(String::as_str), upstream_code);
        }
    }
}

#[tokio::test]
async fn polls_are_retried_like_calls_of_show_certificate() {
    let emulator = emulator_with(show("ISSUED")).await;
    emulator.scripts([Step::Close, failure(503, "SCM.9999")]);
    let gateway = Gateway::of(&emulator).await;
    assert_eq!(rest(&mut watch(&gateway.client).await).await.0, ["ISSUED"]);
    assert_eq!(emulator.attempts(), 3);
}

#[tokio::test]
async fn polls_leave_half_of_the_permits_to_calls() {
    let emulator = emulator_with(Step::Hang).await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", "6")]).await;
    let mut open = Vec::new();
    for number in 0..10 {
        let cert_id = format!("scs{number:013}");
        emulator.script_for(&cert_id, Step::Hang);
        let request = WatchCertificateRequest { cert_id, ..request() };
        open.push(gateway.client.clone().watch_certificate(request).await.unwrap());
    }
    emulator.wait_for_attempts(3).await;
    let waiting = async || gateway.metric::<usize>("scm_gateway_watches_waiting_polls").await;
    until("the other polls to wait", async || waiting().await == 7).await;
    let in_flight = gateway.metric::<usize>("scm_gateway_calls_in_flight").await;
    assert_eq!((in_flight, emulator.attempts()), (3, 3));
}

#[tokio::test]
async fn shutdown_ends_watches_and_does_not_wait_for_them() {
    let emulator = emulator_with(show("PAID")).await;
    let mut gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__DRAIN", "1h")]).await;
    let mut watches = join_all((0..3).map(|_| watch(&gateway.client))).await;
    for watch in &mut watches {
        next(watch).await.unwrap();
    }
    gateway.stop();
    for watch in &mut watches {
        assert_status(&next(watch).await.unwrap_err(), Code::Unavailable, "SHUTTING_DOWN", None);
    }
    timeout(TIMEOUT, gateway.stopped()).await.expect("the drain ends early");
}

#[tokio::test]
async fn shutdown_does_not_wait_for_a_poll_in_flight() {
    let emulator = emulator_with(Step::Hang).await;
    let mut gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__DRAIN", "1h")]).await;
    let mut watch = watch(&gateway.client).await;
    emulator.wait_for_attempts(1).await;
    gateway.stop();
    assert_status(&next(&mut watch).await.unwrap_err(), Code::Unavailable, "SHUTTING_DOWN", None);
    timeout(TIMEOUT, gateway.stopped()).await.expect("the drain ends early");
}

/// Opens a watch whose peer has a closed window.
fn unread_watch(gateway: &Gateway) -> JoinHandle<Received> {
    let headers = call_of("/huaweicloud.scm.v1.CertificateService/WatchCertificate");
    let message = framed(0, &request().encode_to_vec());
    let no_window = [0, 4, 0, 0, 0, 0];
    let call =
        [preface(&no_window), frame(HEADERS, END_HEADERS, 1, &headers), frame(DATA, END_STREAM, 1, &message)].concat();
    let address = gateway.addresses.server.clone();
    tokio::spawn(async move { send_until(&address, &call, |_| false).await })
}

#[tokio::test]
async fn an_unread_watch_counts_until_it_is_read() {
    let emulator = emulator_with(show("ISSUED")).await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__WATCH__MAX", "1")]).await;
    let peer = unread_watch(&gateway);
    emulator.wait_for_attempts(1).await;
    let changed = polls_ended("changed");
    until("the poll to end", async || gateway.metric::<usize>(&changed).await == 1).await;
    let rejected = gateway.client.clone().watch_certificate(request()).await.unwrap_err();
    assert_status(&rejected, Code::ResourceExhausted, "OVERLOADED", None);
    peer.abort();
    until("the watch to end", async || gateway.metric::<usize>("scm_gateway_watches_open").await == 0).await;
    assert_eq!(rest(&mut watch(&gateway.client).await).await.0, ["ISSUED"]);
}

#[tokio::test]
async fn a_success_without_a_status_is_no_change() {
    let emulator = emulator_with(show("ISSUED")).await;
    emulator.scripts([show("PAID"), Step::Reply(Reply::json(200, "{}"))]);
    let gateway = Gateway::with(&emulator, &[FAST]).await;
    assert_eq!(rest(&mut watch(&gateway.client).await).await.0, ["PAID", "ISSUED"]);
    assert_eq!(gateway.metric::<usize>(&polls_ended("failed")).await, 1);
}

/// A peer whose window is closed cannot get the end of its watch.
#[tokio::test]
async fn shutdown_does_not_wait_for_a_peer_that_does_not_read() {
    let emulator = emulator_with(show("PAID")).await;
    let mut gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__DRAIN", "1h")]).await;
    let peer = unread_watch(&gateway);
    emulator.wait_for_attempts(1).await;
    gateway.stop();
    timeout(TIMEOUT, gateway.stopped()).await.expect("the drain ends early");
    assert!(peer.await.unwrap().go_away.is_some());
}

#[tokio::test]
async fn watches_of_an_old_connection_end() {
    let emulator = emulator_with(show("PAID")).await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__MAX_CONNECTION_AGE", "1s")]).await;
    let mut old = watch(&gateway.client).await;
    assert_eq!(next(&mut old).await.unwrap().as_deref(), Some("PAID"));
    assert_status(&next(&mut old).await.unwrap_err(), Code::Unavailable, "SHUTTING_DOWN", None);
    assert_eq!(next(&mut watch(&gateway.client).await).await.unwrap().as_deref(), Some("PAID"));
}

#[tokio::test]
async fn only_the_callers_deadline_ends_a_watch() {
    let emulator = emulator_with(show("PAID")).await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__UPSTREAM__TIMEOUT", "100ms")]).await;
    let started = Instant::now();
    let mut request = Request::new(request());
    request.set_timeout(Duration::from_millis(600));
    let mut watch = gateway.untimed_client().watch_certificate(request).await.unwrap().into_inner();
    let (_, error) = rest(&mut watch).await;
    assert_status(&error.unwrap(), Code::DeadlineExceeded, "DEADLINE", None);
    assert!(started.elapsed() >= Duration::from_millis(570), "{:?}", started.elapsed());
}

#[tokio::test]
async fn cancelling_the_last_watch_stops_the_polls() {
    let emulator = emulator_with(Step::Hang).await;
    let gateway = Gateway::with(&emulator, &[FAST]).await;
    let (first, second) = (watch(&gateway.client).await, watch(&gateway.client).await);
    emulator.wait_for_attempts(1).await;
    drop(first);
    until("the first watch to end", async || gateway.metric::<usize>("scm_gateway_watches_open").await == 1).await;
    assert_eq!(emulator.open_connections(), 1);
    drop(second);
    emulator.wait_for_open_connections(0).await; // the poll in flight is dropped
    until("the other watch to end", async || gateway.metric::<usize>("scm_gateway_watches_open").await == 0).await;
    assert_eq!(emulator.attempts(), 1);
}

/// Returns the variables of a gateway behind a sidecar with these callers, all with the same methods and projects.
fn callers(names: &[&str], methods: &str, projects: &str) -> Vec<(String, String)> {
    let entries = names.iter().enumerate().flat_map(|(index, name)| {
        [("IDENTITY", *name), ("METHODS", methods), ("PROJECTS", projects)]
            .map(|(key, value)| (format!("SCM_GATEWAY__CALLERS__{index}__{key}"), value.to_owned()))
    });
    entries.chain([("SCM_GATEWAY__SERVER__TRUST_XFCC".to_owned(), "true".to_owned())]).collect()
}

fn borrowed(variables: &[(String, String)]) -> Vec<(&str, &str)> {
    variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[tokio::test]
async fn a_caller_may_have_half_of_the_watches_or_all_alone() {
    for (names, expected) in [(&[ORDERS, "spiffe://example.org/b"][..], 2), (&[ORDERS], 4)] {
        let emulator = emulator_with(show("PAID")).await;
        let listed = callers(names, "WatchCertificate", "*");
        let variables = [borrowed(&listed), vec![("SCM_GATEWAY__WATCH__MAX", "4")]].concat();
        let gateway = Gateway::with(&emulator, &variables).await;
        let mut open = Vec::new();
        for _ in 0..expected {
            open.push(gateway.client.clone().watch_certificate(request_of(ORDERS)).await.unwrap());
        }
        let rejected = gateway.client.clone().watch_certificate(request_of(ORDERS)).await.unwrap_err();
        assert_status(&rejected, Code::ResourceExhausted, "OVERLOADED", None);
        for other in &names[1..] {
            open.push(gateway.client.clone().watch_certificate(request_of(other)).await.unwrap());
        }
        open.clear();
        until("the watches to end", async || gateway.metric::<usize>("scm_gateway_watches_open").await == 0).await;
        gateway.client.clone().watch_certificate(request_of(ORDERS)).await.unwrap();
    }
}

#[tokio::test]
async fn a_watcher_needs_the_grant_for_watching_only() {
    let denied = Some((Code::PermissionDenied, "CALLER_NOT_ALLOWED"));
    for (methods, projects, enabled, expected) in [
        ("WatchCertificate", "*", "*", None),
        ("read", SAMPLE_PROJECT, "*", None),
        ("*", "*", "WatchCertificate", None),
        ("ShowCertificate", "*", "*", denied),
        ("*", "*", "ShowCertificate", Some((Code::Unimplemented, "METHOD_DISABLED"))),
    ] {
        let emulator = emulator_with(show("ISSUED")).await;
        let listed = callers(&[ORDERS], methods, projects);
        let variables = [borrowed(&listed), vec![("SCM_GATEWAY__SERVER__METHODS", enabled)]].concat();
        let gateway = Gateway::with(&emulator, &variables).await;
        let result = gateway.client.clone().watch_certificate(request_of(ORDERS)).await;
        match expected {
            None => assert_eq!(rest(&mut result.unwrap().into_inner()).await.0, ["ISSUED"], "{methods} {projects}"),
            Some((code, reason)) => assert_status(&result.unwrap_err(), code, reason, None),
        }
        assert_eq!(emulator.attempts(), usize::from(expected.is_none()), "{methods} {projects}");
    }
}

#[tokio::test]
async fn invalid_requests_are_rejected_before_a_poll() {
    let emulator = emulator_with(show("PAID")).await;
    let gateway = Gateway::of(&emulator).await;
    let call = async |request| gateway.client.clone().watch_certificate(request).await.unwrap_err();
    for cert_id in ["", "a b", "../x"] {
        let status = call(WatchCertificateRequest { cert_id: cert_id.into(), ..request() }).await;
        assert_status(&status, Code::InvalidArgument, "INVALID_REQUEST", None);
        assert_eq!(fields(&status), ["cert_id"]);
    }
    let status = call(WatchCertificateRequest { project_id: "other".into(), ..request() }).await;
    assert_status(&status, Code::PermissionDenied, "CALLER_NOT_ALLOWED", None);
    assert_eq!(emulator.attempts(), 0);
}

#[tokio::test]
async fn the_audit_line_is_written_at_the_end() {
    let emulator = emulator_with(show("PAID")).await;
    let listed = callers(&[ORDERS], "WatchCertificate", "*");
    let variables = [borrowed(&listed), vec![FAST, ("SCM_GATEWAY__SERVER__MAX_CONNECTION_AGE", "1h")]].concat();
    let mut process = Process::start(&emulator.endpoint(), &variables).await;
    let client = client(&process.address).await;
    let open = async |timeout: Option<Duration>| {
        let mut request = request_of(ORDERS);
        timeout.into_iter().for_each(|timeout| request.set_timeout(timeout));
        let mut watch = client.clone().watch_certificate(request).await.unwrap().into_inner();
        next(&mut watch).await.unwrap();
        watch
    };
    let assert_line = |line: &Value, status: &str, reason: Option<&str>| {
        for (field, value) in [
            ("target", Some("scm_gateway::audit")),
            ("level", Some("INFO")),
            ("identity", Some(ORDERS)),
            ("rpc", Some("huaweicloud.scm.v1.CertificateService/WatchCertificate")),
            ("project_id", Some(SAMPLE_PROJECT)),
            ("cert_id", Some(CERT)),
            ("status", Some(status)),
            ("reason", reason),
        ] {
            assert_eq!(line.get(field).and_then(Value::as_str), value, "{field} of {line}");
        }
        line["duration_ms"].as_f64().unwrap()
    };

    drop(open(None).await);
    assert_line(&process.line("call cancelled").await, "CANCELLED", None);

    let mut until_deadline = open(Some(Duration::from_millis(300))).await;
    until_deadline.message().await.unwrap_err();
    let duration = assert_line(&process.line("stream ended").await, "DEADLINE_EXCEEDED", Some("DEADLINE"));
    assert!(duration >= 250.0, "{duration}");

    let mut until_found = open(None).await;
    emulator.script(Step::Reply(Reply::json(400, r#"{"error_code":"SCM.0008"}"#).header("X-Request-Id", "r-1")));
    until_found.message().await.unwrap_err();
    let line = process.line("call rejected").await;
    assert_line(&line, "NOT_FOUND", Some("CERTIFICATE_NOT_FOUND"));
    assert_eq!((&line["upstream_code"], &line["attempts"]), (&"SCM.0008".into(), &1.into()));
    assert_eq!(line["upstream_request_id"], "r-1");

    let mut until_issued = open(None).await;
    emulator.script(show("ISSUED"));
    assert_eq!(rest(&mut until_issued).await.0, ["ISSUED"]);
    assert_line(&process.line("call succeeded").await, "OK", None);

    let mut until_shutdown = open(None).await;
    process.signal("TERM");
    until_shutdown.message().await.unwrap_err();
    assert_line(&process.line("stream ended").await, "UNAVAILABLE", Some("SHUTTING_DOWN"));

    let (code, log) = process.end().await;
    assert_eq!(code, Some(0));
    assert_eq!(log.iter().filter(|line| line.contains("scm_gateway::audit")).count(), 5, "one line a call: {log:?}");
}

#[tokio::test]
async fn ends_that_are_expected_do_not_count_as_errors() {
    let emulator = emulator_with(show("PAID")).await;
    for (age, timeout, reason) in [("1s", None, "SHUTTING_DOWN"), ("1h", Some(300), "DEADLINE")] {
        let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__MAX_CONNECTION_AGE", age)]).await;
        let mut request = Request::new(request());
        timeout.into_iter().for_each(|timeout| request.set_timeout(Duration::from_millis(timeout)));
        let mut watch = gateway.untimed_client().watch_certificate(request).await.unwrap().into_inner();
        assert!(rest(&mut watch).await.1.is_some());
        let (_, page) = gateway.admin("/metrics").await;
        let line = page.lines().find(|line| line.starts_with("rpc_server_call_duration_seconds_count")).unwrap();
        assert!(line.contains(&format!("\"{reason}\"")) && line.contains("WatchCertificate"), "{line}");
        assert!(!line.contains("error_type"), "{line}");
    }
}

#[tokio::test]
async fn personal_data_does_not_leak() {
    let certificate = json!({
        "id": CERT, "name": "p1anted", "status": "PAID", "domain": "p1anted.example", "applicant_name": "p1anted",
        "authentification": [{"record_name": "p1anted", "record_value": "p1anted"}],
    });
    let emulator = emulator_with(Step::Reply(Reply::json(200, &certificate.to_string()))).await;
    let sink = Sink::grpc().await;
    let endpoint = format!("http://{}", sink.address);
    let variables = [
        FAST,
        ("RUST_LOG", "trace"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_METRICS_EXPORTER", "none"),
    ];
    let process = Process::start(&emulator.endpoint(), &variables).await;
    let client = client(&process.address).await;
    let mut watch = watch(&client).await;
    let response = watch.message().await.unwrap().unwrap();
    assert_eq!(response.certificate.unwrap().name, "p1anted", "the caller gets it");
    emulator.script(Step::Reply(Reply::json(400, r#"{"error_code":"SCM.0003","error_msg":"p1anted"}"#)));
    let status = watch.message().await.unwrap_err();
    let metrics = process.metrics().await;
    process.signal("TERM");
    let (code, log) = process.end().await;
    assert_eq!(code, Some(0));
    let spans = sink.spans();
    assert!(spans.iter().any(|span| span.name == "watch poll"), "{spans:?}");
    let written = [
        ("log", log.join("\n")),
        ("metrics", metrics),
        ("spans", format!("{spans:?}")),
        ("status", format!("{status:?} {}", String::from_utf8_lossy(status.details()))),
    ];
    for (output, text) in &written {
        assert!(!text.contains("p1anted") && !text.contains("/certificates/scs"), "the {output}: {text}");
    }
}
