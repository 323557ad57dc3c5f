//! Deadlines and cancellation, and what they stop.

use std::time::Duration;

use scm_emulator::Step;
use tonic::{Code, Request};

use crate::harness::{Gateway, assert_status, emulator, sample};

fn with_timeout(timeout: Duration) -> Request<scm_gateway::proto::SaveInfoRequest> {
    let mut request = Request::new(sample());
    request.set_timeout(timeout);
    request
}

#[tokio::test]
async fn callers_deadline_ends_the_call_and_its_attempt() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    emulator.script(Step::Hang);
    let status = gateway.untimed_client().save_info(with_timeout(Duration::from_millis(200))).await.unwrap_err();
    assert_status(&status, Code::DeadlineExceeded, "DEADLINE", Some(1));
    emulator.wait_for_open_connections(0).await;
    assert_eq!(emulator.attempts(), 1);
}

#[tokio::test]
async fn upstream_timeout_ends_the_call() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__UPSTREAM__TIMEOUT", "150ms")]).await;
    emulator.script(Step::Hang);
    let status = gateway.save(sample()).await.unwrap_err();
    assert_status(&status, Code::DeadlineExceeded, "DEADLINE", Some(1));
}

#[tokio::test]
async fn too_short_deadline_sends_nothing() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    for timeout in ["20m", "1m", "0n"] {
        let mut request = Request::new(sample());
        request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
        let status = gateway.untimed_client().save_info(request).await.unwrap_err();
        assert_status(&status, Code::DeadlineExceeded, "DEADLINE", None);
    }
    assert_eq!((emulator.attempts(), emulator.connections()), (0, 0));
}

#[tokio::test]
async fn very_long_deadline_has_no_effect() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    gateway.client.clone().save_info(with_timeout(Duration::from_secs(99_999_999))).await.unwrap();
}

#[tokio::test]
async fn cancelled_call_cancels_its_attempt() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    emulator.script(Step::Hang);
    let mut client = gateway.client.clone();
    let call = tokio::spawn(async move { client.save_info(sample()).await });
    emulator.wait_for_attempts(1).await;
    call.abort();
    emulator.wait_for_open_connections(0).await;
}
