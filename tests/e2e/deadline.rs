//! Whose time is over, and what that stops.

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
async fn the_callers_deadline_ends_the_call_and_frees_the_upstream() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    emulator.script(Step::Hang);
    let status = gateway.patient_client().save_info(with_timeout(Duration::from_millis(200))).await.unwrap_err();
    assert_status(&status, Code::DeadlineExceeded, "DEADLINE", Some(1));
    emulator.wait_for_open_connections(0).await;
    assert_eq!(emulator.attempts(), 1);
}

#[tokio::test]
async fn the_gateways_own_time_ends_the_call() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__UPSTREAM__TIMEOUT", "150ms")]).await;
    emulator.script(Step::Hang);
    let status = gateway.save(sample()).await.unwrap_err();
    assert_status(&status, Code::DeadlineExceeded, "DEADLINE", Some(1));
}

#[tokio::test]
async fn with_too_little_time_left_to_answer_nothing_is_sent() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    for timeout in ["20m", "1m", "0n"] {
        let mut request = Request::new(sample());
        request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
        let status = gateway.patient_client().save_info(request).await.unwrap_err();
        assert_status(&status, Code::DeadlineExceeded, "DEADLINE", None);
    }
    assert_eq!((emulator.attempts(), emulator.connections()), (0, 0));
}

#[tokio::test]
async fn a_deadline_that_is_far_away_changes_nothing() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    gateway.client.clone().save_info(with_timeout(Duration::from_secs(99_999_999))).await.unwrap();
}

#[tokio::test]
async fn a_caller_that_gives_up_frees_the_upstream() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    emulator.script(Step::Hang);
    let mut client = gateway.client.clone();
    let call = tokio::spawn(async move { client.save_info(sample()).await });
    emulator.wait_for_attempts(1).await;
    call.abort();
    emulator.wait_for_open_connections(0).await;
}
