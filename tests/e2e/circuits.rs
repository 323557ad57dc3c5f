//! Circuit breaker, cooldown and suspended credentials: calls are rejected before they reach SCM.

use std::time::Duration;

use scm_emulator::{Emulator, Options, Reply, Step};
use scm_gateway::{clock::Clock, proto::SaveInfoRequest};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::{Gateway, assert_status, emulator, environment, sample, seen, until};

fn wait(status: &Status) -> Duration {
    status.get_error_details().retry_info().expect("the status has RetryInfo").retry_delay.unwrap()
}

#[tokio::test]
async fn seven_failures_open_the_circuit_until_a_probe() {
    let emulator = emulator().await;
    let variables = [("SCM_GATEWAY__UPSTREAM__ATTEMPTS", "1"), ("SCM_GATEWAY__UPSTREAM__CIRCUIT_BACKOFF", "200ms")];
    let gateway = Gateway::with(&emulator, &variables).await;
    emulator.scripts((0..7).map(|_| Step::Reply(Reply::new(503))));
    for _ in 0..7 {
        let status = gateway.save(sample()).await.unwrap_err();
        assert_status(&status, Code::Unavailable, "UPSTREAM_UNAVAILABLE", Some(1));
    }

    let status = gateway.save(sample()).await.unwrap_err();

    assert_status(&status, Code::Unavailable, "CIRCUIT_OPEN", None);
    assert!(wait(&status) <= Duration::from_millis(220), "{status:?}");
    assert_eq!(emulator.attempts(), 7);
    let (_, metrics) = gateway.admin("/metrics").await;
    let open = metrics.lines().find(|line| line.starts_with("scm_gateway_circuit_open") && line.contains("upstream"));
    assert!(open.is_some_and(|line| line.ends_with(" 1")), "{metrics}");
    tokio::time::sleep(wait(&status)).await; // the delay of RetryInfo
    gateway.save(sample()).await.unwrap();
    gateway.save(sample()).await.unwrap();
}

/// The deadline is exceeded during the second attempt. The first one could not connect.
#[tokio::test]
async fn connect_timeouts_open_the_circuit() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", silent.local_addr().unwrap());
    let variables = [
        ("SCM_GATEWAY__UPSTREAM__CONNECT_TIMEOUT", "200ms"),
        ("SCM_GATEWAY__UPSTREAM__TIMEOUT", "300ms"),
        ("SCM_GATEWAY__UPSTREAM__INITIAL_BACKOFF", "1ms"),
    ];
    let gateway = Gateway::start(environment(&endpoint, &variables), Clock::system()).await;
    for _ in 0..7 {
        let status = gateway.save(sample()).await.unwrap_err();
        assert_status(&status, Code::DeadlineExceeded, "DEADLINE", None);
    }
    let status = gateway.save(sample()).await.unwrap_err();
    assert_status(&status, Code::Unavailable, "CIRCUIT_OPEN", None);
}

/// Makes a call that its caller gives up after 400 ms: by the deadline, or by cancelling it.
async fn give_up(gateway: &Gateway, by_deadline: bool) {
    let timeout = Duration::from_millis(400);
    let mut client = gateway.untimed_client();
    if by_deadline {
        let mut request = tonic::Request::new(sample());
        request.set_timeout(timeout);
        let status = client.save_info(request).await.unwrap_err();
        assert_eq!((status.code(), seen(&status).reason.as_str()), (Code::DeadlineExceeded, "DEADLINE"));
    } else {
        tokio::time::timeout(timeout, client.save_info(sample())).await.unwrap_err();
    }
}

/// SCM accepts connections and requests, and answers neither a ClientHello nor a request.
#[tokio::test]
async fn hangs_open_the_circuit_though_callers_wait_for_less_than_the_timeouts() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("https://{}", silent.local_addr().unwrap());
    for (calls_before, by_deadline) in [(20, true), (20, false), (1, true), (1, false), (0, true), (0, false)] {
        let emulator = emulator().await;
        let endpoint = if calls_before > 0 { emulator.endpoint() } else { silent.clone() };
        let gateway = Gateway::start(environment(&endpoint, &[]), Clock::system()).await;
        for _ in 0..calls_before {
            gateway.save(sample()).await.unwrap();
        }
        emulator.scripts((0..7).map(|_| Step::Hang));
        for _ in 0..7 {
            give_up(&gateway, by_deadline).await;
        }
        let status = until_open(&gateway).await;
        assert_status(&status, Code::Unavailable, "CIRCUIT_OPEN", None);
        assert_eq!(emulator.attempts(), if calls_before > 0 { calls_before + 7 } else { 0 });
    }
}

/// Of an unverified access key, one request hangs. The other calls wait for its response.
#[tokio::test]
async fn a_hang_opens_the_circuit_before_the_first_response() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    emulator.scripts((0..7).map(|_| Step::Hang));
    for _ in 0..8 {
        give_up(&gateway, true).await;
    }
    assert_status(&until_open(&gateway).await, Code::Unavailable, "CIRCUIT_OPEN", None);
    assert_eq!(emulator.attempts(), 1);
}

/// One call hangs after the other, and SCM answers other calls meanwhile.
#[tokio::test]
async fn slow_calls_do_not_open_the_circuit_while_scm_answers_others() {
    let slow = "scs1600000000099";
    let options = Options { steps: vec![(slow.to_owned(), Step::Hang)], ..Options::default() };
    let emulator = Emulator::start(options).await.unwrap();
    let gateway = Gateway::of(&emulator).await;
    gateway.save(sample()).await.unwrap();
    for _ in 0..2 {
        let slow_calls: Vec<_> = (0..10)
            .map(|_| {
                let mut request = tonic::Request::new(SaveInfoRequest { cert_id: slow.to_owned(), ..sample() });
                request.set_timeout(Duration::from_millis(400));
                let mut client = gateway.untimed_client();
                tokio::spawn(async move { client.save_info(request).await.unwrap_err() })
            })
            .collect();
        emulator.wait_for_attempts(emulator.attempts() + 10).await;
        gateway.save(sample()).await.unwrap();
        for call in slow_calls {
            assert_eq!(seen(&call.await.unwrap()).reason, "DEADLINE");
        }
        gateway.save(sample()).await.unwrap();
    }
}

/// All callers wait for less than SCM needs. The response to the probe arrives after its caller has gone.
#[tokio::test]
async fn a_probe_closes_the_circuit_after_its_caller_has_gone() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    gateway.save(sample()).await.unwrap();
    emulator.scripts((0..7).map(|_| Step::Hang));
    for _ in 0..7 {
        give_up(&gateway, true).await;
    }
    let status = until_open(&gateway).await;
    tokio::time::sleep(wait(&status)).await; // the delay of RetryInfo
    let gate = std::sync::Arc::new(tokio::sync::Notify::new());
    emulator.script(Step::HangThenServe(gate.clone()));
    give_up(&gateway, true).await;
    gate.notify_one();
    let is_closed = || async { gateway.metric::<u64>(r#"scm_gateway_circuit_open{circuit="upstream""#).await == 0 };
    until("the circuit to close", is_closed).await;
    gateway.save(sample()).await.unwrap();
}

/// The gateway may learn of a cancelled call after the next one has begun, which then would be sent.
async fn until_open(gateway: &Gateway) -> Status {
    let is_open = || async { gateway.metric::<u64>(r#"scm_gateway_circuit_open{circuit="upstream""#).await == 1 };
    until("the circuit to open", is_open).await;
    gateway.save(sample()).await.unwrap_err()
}

#[tokio::test]
async fn rejected_requests_do_not_open_the_circuit() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    emulator.scripts((0..20).map(|_| Step::Reply(Reply::json(400, r#"{"error_code":"SCM.0010","error_msg":"x"}"#))));
    for _ in 0..20 {
        let status = gateway.save(sample()).await.unwrap_err();
        assert_status(&status, Code::FailedPrecondition, "CERTIFICATE_STATE", Some(1));
    }
    gateway.save(sample()).await.unwrap();
}

#[tokio::test]
async fn cooldown_after_a_429_lasts_for_retry_after() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    emulator.script(Step::Reply(Reply::new(429).header("Retry-After", "1")));
    let status = gateway.save(sample()).await.unwrap_err();
    assert_status(&status, Code::ResourceExhausted, "UPSTREAM_THROTTLED", Some(1));
    let status = gateway.save(sample()).await.unwrap_err();
    assert_status(&status, Code::ResourceExhausted, "UPSTREAM_THROTTLED", None);
    assert!(wait(&status) <= Duration::from_secs(1));
    assert_eq!(emulator.attempts(), 1);
    tokio::time::sleep(wait(&status)).await; // the delay of RetryInfo
    gateway.save(sample()).await.unwrap();
}

#[tokio::test]
async fn calls_with_a_wrong_secret_never_lock_the_key() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("HUAWEICLOUD_SDK_SK", "wrong")]).await;
    let calls: Vec<_> = (0..500)
        .map(|_| {
            let mut client = gateway.client.clone();
            tokio::spawn(async move { client.save_info(sample()).await.unwrap_err() })
        })
        .collect();
    for call in calls {
        let status = call.await.unwrap();
        assert_eq!(seen(&status).reason, "UPSTREAM_CREDENTIALS");
        assert_eq!(status.code(), Code::Internal);
    }
    let rejected = emulator.rejections().len();
    assert_eq!(rejected, 2, "more than five lock the key");
    let status = gateway.save(sample()).await.unwrap_err();
    assert_status(&status, Code::Internal, "UPSTREAM_CREDENTIALS", None);
    assert_eq!(wait(&status), Duration::from_secs(60), "five minutes, limited to the longest wait of RetryInfo");
}

#[tokio::test]
async fn truncated_401_counts_and_is_not_retried() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let cut = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 500\r\n\r\n{".to_vec();
    emulator.scripts((0..9).map(|_| Step::Raw(cut.clone())));
    for attempts in [Some(1), Some(1), None, None] {
        let status = gateway.save(sample()).await.unwrap_err();
        assert_status(&status, Code::Internal, "UPSTREAM_CREDENTIALS", attempts);
    }
    assert_eq!(emulator.attempts(), 2);
}

#[tokio::test]
async fn cooldown_rejects_calls_that_wait_for_a_permit() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    emulator.scripts((0..100).map(|_| Step::Reply(Reply::new(429).header("Retry-After", "60"))));
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let mut client = gateway.client.clone();
            tokio::spawn(async move { client.save_info(sample()).await.unwrap_err() })
        })
        .collect();
    for call in calls {
        assert_eq!(seen(&call.await.unwrap()).reason, "UPSTREAM_THROTTLED");
    }
    assert_eq!(emulator.attempts(), 1);
}

#[tokio::test]
async fn outage_after_a_429_opens_the_circuit() {
    let emulator = emulator().await;
    let variables = [("SCM_GATEWAY__UPSTREAM__ATTEMPTS", "2"), ("SCM_GATEWAY__UPSTREAM__CIRCUIT_MAX_FAILURES", "3")];
    let gateway = Gateway::with(&emulator, &variables).await;
    emulator.script(Step::Reply(Reply::new(429).header("Retry-After", "1")));
    let status = gateway.save(sample()).await.unwrap_err();
    assert_status(&status, Code::ResourceExhausted, "UPSTREAM_THROTTLED", Some(1));
    tokio::time::sleep(wait(&status)).await; // the delay of RetryInfo
    emulator.scripts((0..100).map(|_| Step::Close));
    for _ in 0..3 {
        let status = gateway.save(sample()).await.unwrap_err();
        assert_status(&status, Code::Unavailable, "UPSTREAM_UNAVAILABLE", Some(2));
    }
    let status = gateway.save(sample()).await.unwrap_err();
    assert_status(&status, Code::Unavailable, "CIRCUIT_OPEN", None);
}

#[tokio::test]
async fn rejections_after_the_deadline_count() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("HUAWEICLOUD_SDK_SK", "wrong")]).await;
    let gate = std::sync::Arc::new(tokio::sync::Notify::new());
    emulator.scripts((0..100).map(|_| Step::HangThenServe(gate.clone())));
    for sent in 1..=2 {
        let mut request = tonic::Request::new(sample());
        request.set_timeout(Duration::from_millis(200));
        let status = gateway.untimed_client().save_info(request).await.unwrap_err();
        assert_status(&status, Code::DeadlineExceeded, "DEADLINE", Some(1));
        assert_eq!(emulator.attempts(), sent);
        gate.notify_waiters();
        until("the rejection", || async { emulator.rejections().len() == sent }).await;
    }
    while gateway.admin("/readyz").await.0 != 503 {}
    let status = gateway.save(sample()).await.unwrap_err();
    assert_status(&status, Code::Internal, "UPSTREAM_CREDENTIALS", None);
    assert_eq!((emulator.attempts(), emulator.rejections().len()), (2, 2));
}
