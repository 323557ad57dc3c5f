//! Retries: which failures are retried, when, and how often.

use std::time::Duration;

use scm_emulator::{Emulator, Options, Reply, Step, Then};
use tokio::task::JoinSet;
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

use crate::harness::{Gateway, assert_status, emulator, read, sample};

fn unavailable() -> Step {
    Step::Reply(Reply::json(503, r#"{"error_code":"APIG.0613","error_msg":"IAM not available"}"#))
}

#[tokio::test]
async fn hanging_attempt_is_retried_on_another_connection() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__UPSTREAM__ATTEMPT_TIMEOUT", "200ms")]).await;
    gateway.save(sample()).await.unwrap();
    for step in [Step::Hang, Step::RawThen(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".to_vec(), Then::Hang)] {
        let before = emulator.attempts();
        emulator.script(step);
        gateway.save(sample()).await.unwrap();
        assert_eq!(emulator.attempts(), before + 2);
    }
    assert_eq!(emulator.connections(), 3);
}

/// SCM needs more time than an attempt has.
#[tokio::test]
async fn the_last_attempt_has_all_the_time_that_is_left() {
    let emulator = Emulator::start(Options { service_time: Duration::from_millis(400), ..Options::default() }).await;
    let emulator = emulator.unwrap();
    let variables = [("SCM_GATEWAY__UPSTREAM__ATTEMPT_TIMEOUT", "100ms"), ("SCM_GATEWAY__UPSTREAM__ATTEMPTS", "2")];
    let gateway = Gateway::with(&emulator, &variables).await;
    gateway.save(sample()).await.unwrap();
    assert_eq!(emulator.attempts(), 2);
}

/// Connections that a firewall has forgotten: they are open for the gateway, and nobody answers.
#[tokio::test]
async fn one_hanging_attempt_discards_all_idle_connections() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__UPSTREAM__ATTEMPT_TIMEOUT", "300ms")]).await;
    gateway.save(sample()).await.unwrap();
    let gate = std::sync::Arc::new(tokio::sync::Notify::new());
    emulator.scripts((0..20).map(|_| Step::HangThenServe(gate.clone())));
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let mut client = gateway.client.clone();
        calls.spawn(async move { client.save_info(sample()).await.unwrap() });
    }
    emulator.wait_for_attempts(21).await;
    (0..20).for_each(|_| gate.notify_one());
    calls.join_all().await;
    emulator.script(Step::Hang);
    gateway.save(sample()).await.unwrap();
    emulator.wait_for_open_connections(1).await;
    assert_eq!(emulator.attempts(), 23);
}

#[tokio::test]
async fn transient_failures_are_retried() {
    for step in [
        Step::Close,
        Step::Reset,
        Step::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{".to_vec()),
        Step::Reply(Reply::new(408)),
        Step::Reply(Reply::new(502)),
        unavailable(),
        Step::Reply(Reply::new(504)),
    ] {
        let emulator = emulator().await;
        let gateway = Gateway::of(&emulator).await;
        emulator.scripts([step.clone(), step.clone()]);
        gateway.save(sample()).await.unwrap_or_else(|status| panic!("{step:?}: {status:?}"));
        assert_eq!(emulator.attempts(), 3, "{step:?}");
        assert_eq!(emulator.rejections().len(), 0, "{step:?}");
    }
}

#[tokio::test]
async fn read_is_retried_like_a_save() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    gateway.save(sample()).await.unwrap();
    emulator.scripts([unavailable(), unavailable()]);
    gateway.client.clone().read_info(read()).await.unwrap();
    assert_eq!(emulator.attempts(), 4);
}

#[tokio::test]
async fn final_responses_are_not_retried() {
    for (status, code, reason) in [
        (400, Code::InvalidArgument, "INVALID_REQUEST"),
        (401, Code::Internal, "UPSTREAM_CREDENTIALS"),
        (409, Code::Aborted, "UPSTREAM_CONFLICT"),
        (429, Code::ResourceExhausted, "UPSTREAM_THROTTLED"),
        (500, Code::Internal, "UPSTREAM_ERROR"),
    ] {
        let emulator = emulator().await;
        let gateway = Gateway::of(&emulator).await;
        emulator.script(Step::Reply(Reply::new(status)));
        assert_status(&gateway.save(sample()).await.unwrap_err(), code, reason, Some(1));
        assert_eq!(emulator.attempts(), 1);
    }
}

#[tokio::test]
async fn number_of_attempts_is_configurable() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__UPSTREAM__ATTEMPTS", "1")]).await;
    emulator.script(unavailable());
    let status = gateway.save(sample()).await.unwrap_err();
    assert_status(&status, Code::Unavailable, "UPSTREAM_UNAVAILABLE", Some(1));
    assert_eq!(emulator.attempts(), 1);
}

#[tokio::test]
async fn every_attempt_has_its_own_signature() {
    let emulator = emulator().await;
    let time = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let ticking = move || {
        let seconds = time.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        std::time::SystemTime::now() + Duration::from_secs(seconds)
    };
    let environment = crate::harness::environment(&emulator.endpoint(), &[]);
    let gateway = Gateway::start(environment, scm_gateway::clock::Clock::from_fn(ticking)).await;
    emulator.scripts([unavailable(), unavailable()]);
    gateway.save(sample()).await.unwrap();
    let journal = emulator.journal();
    let dates: std::collections::BTreeSet<_> = journal.iter().map(|sent| sent.header("x-sdk-date").unwrap()).collect();
    let signatures: std::collections::BTreeSet<_> =
        journal.iter().map(|sent| sent.header("authorization").unwrap()).collect();
    let spans: std::collections::BTreeSet<_> = journal.iter().map(|sent| sent.header("traceparent").unwrap()).collect();
    assert_eq!((dates.len(), signatures.len(), spans.len()), (3, 3, 3));
}

#[tokio::test]
async fn no_retry_if_the_wait_exceeds_the_deadline() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    emulator.script(Step::Reply(Reply::new(503).header("Retry-After", "30")));
    let status = gateway.save(sample()).await.unwrap_err();
    assert_status(&status, Code::Unavailable, "UPSTREAM_UNAVAILABLE", Some(1));
    let wait = status.get_error_details().retry_info().unwrap().retry_delay;
    assert_eq!(wait, Some(Duration::from_secs(30)));
    assert_eq!(emulator.attempts(), 1);
}

#[tokio::test]
async fn retry_waits_for_retry_after() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    emulator.script(Step::Reply(Reply::new(503).header("Retry-After", "1")));
    let started = std::time::Instant::now();
    gateway.save(sample()).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(emulator.attempts(), 2);
}

#[tokio::test]
async fn all_attempts_share_one_deadline() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    emulator.scripts([unavailable(), Step::Hang]);
    let mut request = Request::new(sample());
    request.set_timeout(Duration::from_millis(500));
    let status = gateway.untimed_client().save_info(request).await.unwrap_err();
    assert_status(&status, Code::DeadlineExceeded, "DEADLINE", Some(2));
    emulator.wait_for_open_connections(0).await;
}

#[tokio::test]
async fn retry_budget_covers_all_calls() {
    let emulator = emulator().await;
    // The circuit stays closed.
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__UPSTREAM__CIRCUIT_MAX_FAILURES", "1000")]).await;
    emulator.scripts((0..200).map(|_| unavailable()));
    let started = std::time::Instant::now();
    let calls = 50;
    for _ in 0..calls {
        gateway.save(sample()).await.unwrap_err();
    }
    // tower's budget forgets a retry after 0.9 to 1 s, because it counts in slots of 0.1 s.
    let bound = 10.0 + 0.2 * f64::from(calls) + 10.0 / 0.9 * started.elapsed().as_secs_f64();
    let retries = emulator.attempts() - calls as usize;
    assert!(retries > 0 && retries as f64 <= bound, "{retries} of at most {bound}");
}

#[tokio::test]
async fn each_attempt_is_a_span_with_a_resend_count() {
    use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

    use crate::harness::otlp_sink::{Sink, attribute};
    let emulator = emulator().await;
    let sink = Sink::http().await;
    let variables = sink.variables();
    let mut gateway = Gateway::with(&emulator, &variables).await;
    emulator.scripts([unavailable(), Step::Close]);
    gateway.save(sample()).await.unwrap();
    gateway.stop();
    gateway.stopped().await;
    let mut attempts: Vec<_> = sink.spans().into_iter().filter(|span| span.kind() == SpanKind::Client).collect();
    attempts.sort_by_key(|span| span.start_time_unix_nano);
    let seen: Vec<_> = attempts
        .iter()
        .map(|span| {
            let of = |name| attribute(span, name);
            (of("http.request.resend_count"), of("http.response.status_code"), of("error.type"))
        })
        .collect();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        seen,
        [
            (None, text("int 503"), text("503")),
            (text("int 1"), None, text("UPSTREAM_UNAVAILABLE")),
            (text("int 2"), text("int 200"), None),
        ]
    );
}

#[tokio::test]
async fn pushback_is_negative_beyond_the_deadline() {
    for (timeout, pushback) in
        [(None, "20000"), (Some(Duration::from_secs(25)), "20000"), (Some(Duration::from_secs(8)), "-1")]
    {
        let emulator = emulator().await;
        let gateway = Gateway::of(&emulator).await;
        emulator.script(Step::Reply(Reply::new(503).header("Retry-After", "20")));
        let mut request = Request::new(sample());
        timeout.into_iter().for_each(|timeout| request.set_timeout(timeout));
        let status = gateway.untimed_client().save_info(request).await.unwrap_err();
        assert_status(&status, Code::Unavailable, "UPSTREAM_UNAVAILABLE", Some(1));
        assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), pushback, "{timeout:?}");
        assert_eq!(emulator.attempts(), 1);
    }
}

#[tokio::test]
async fn dead_pooled_connections_fail_no_call() {
    const CALLS: usize = 40;
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    gateway.save(sample()).await.unwrap(); // verified credentials sign many requests at a time
    let gate = std::sync::Arc::new(tokio::sync::Notify::new());
    emulator.scripts((0..CALLS).map(|_| Step::HangThenServe(gate.clone())));
    let call = || {
        let mut client = gateway.client.clone();
        tokio::spawn(async move { client.save_info(sample()).await })
    };
    let calls: Vec<_> = (0..CALLS).map(|_| call()).collect();
    emulator.wait_for_attempts(1 + CALLS).await;
    gate.notify_waiters();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let warm = emulator.connections();
    assert!(warm >= CALLS, "{warm} pooled connections");

    // The pooled connection is reset at its next request, and a new one is served.
    emulator.script(Step::Reset);
    gateway.save(sample()).await.unwrap();
    assert_eq!(emulator.attempts(), 1 + CALLS + 2);
    assert_eq!(emulator.connections(), warm + 1, "the retry has a new connection");
    // The other idle connections are probably dead, too: they are closed, and the new one is used from now on.
    emulator.wait_for_open_connections(1).await;
    gateway.save(sample()).await.unwrap();
    assert_eq!((emulator.attempts(), emulator.connections()), (1 + CALLS + 3, warm + 1));
}

#[tokio::test]
async fn status_is_used_if_the_body_never_ends() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let head = b"HTTP/1.1 404 Not Found\r\nContent-Length: 500\r\n\r\n{".to_vec();
    emulator.script(Step::RawThen(head, scm_emulator::Then::Hang));
    let mut request = Request::new(sample());
    request.set_timeout(Duration::from_millis(400)); // less than a body may take
    let status = gateway.untimed_client().save_info(request).await.unwrap_err();
    assert_status(&status, Code::NotFound, "CERTIFICATE_NOT_FOUND", Some(1));
}
