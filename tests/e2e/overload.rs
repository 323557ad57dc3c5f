//! More calls than the gateway's limits allow.

use std::{sync::Arc, time::Duration};

use scm_emulator::Step;
use tokio::sync::Notify;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt as _;

use crate::harness::{Gateway, assert_status, client, emulator, in_flight, read, sample, until, value_of};

mod memory_quota;

/// Returns the calls in flight and their limit, from the metrics.
async fn calls_and_limit(gateway: &Gateway) -> [u64; 2] {
    let (_, metrics) = gateway.admin("/metrics").await;
    ["scm_gateway_calls_in_flight{", "scm_gateway_calls_limit{"].map(|series| value_of(&metrics, series))
}

#[tokio::test]
async fn call_over_the_limit_is_rejected_at_once() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", "1")]).await;
    let gate = Arc::new(Notify::new());
    let first = in_flight(&emulator, Step::HangThenServe(gate.clone()), gateway.client.clone()).await;

    let status = gateway.save(sample()).await.unwrap_err();

    assert_status(&status, Code::ResourceExhausted, "OVERLOADED", None);
    let wait = status.get_error_details().retry_info().unwrap().retry_delay;
    assert_eq!(wait, Some(Duration::from_secs(1)));
    assert_eq!(emulator.attempts(), 1);
    let mut health = HealthClient::new(gateway.channel().await);
    health.check(HealthCheckRequest::default()).await.expect("health is exempt");
    gate.notify_one();
    first.await.unwrap().unwrap();
    gateway.save(sample()).await.unwrap();
}

#[tokio::test]
async fn limit_is_global_and_exempts_health_and_admin() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", "3")]).await;
    let gate = Arc::new(Notify::new());
    emulator.scripts(vec![Step::HangThenServe(gate.clone()); 3]);
    let mut hanging = Vec::new();
    for _ in 0..3 {
        let mut client = client(&gateway.addresses.server).await;
        hanging.push(tokio::spawn(async move { client.save_info(sample()).await }));
    }
    emulator.wait_for_attempts(3).await;

    for _ in 0..50 {
        let status = client(&gateway.addresses.server).await.save_info(sample()).await.unwrap_err();
        assert_status(&status, Code::ResourceExhausted, "OVERLOADED", None);
        assert!(status.get_error_details().retry_info().is_some(), "{status:?}");
    }
    let mut health = HealthClient::new(gateway.channel().await);
    health.check(HealthCheckRequest::default()).await.unwrap();
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(gateway.admin(path).await.0, 200, "{path}");
    }

    assert!(hanging.iter().all(|call| !call.is_finished()), "the other calls did not wait for a permit");
    assert_eq!(emulator.attempts(), 3, "the rejected calls were not sent");
    hanging.iter().for_each(|_| gate.notify_one());
    for call in hanging {
        call.await.unwrap().unwrap();
    }
    gateway.save(sample()).await.unwrap();
}

#[tokio::test]
async fn cancelled_call_releases_its_permit() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", "1")]).await;
    let first = in_flight(&emulator, Step::Hang, gateway.client.clone()).await;
    first.abort();
    emulator.wait_for_open_connections(0).await;
    gateway.save(sample()).await.unwrap();
}

#[tokio::test]
async fn metrics_show_the_calls_in_flight() {
    let emulator = emulator().await;
    let variables = [
        ("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", "7"),
        // Nothing but the cancellation ends the second call.
        ("SCM_GATEWAY__UPSTREAM__TIMEOUT", "5m"),
        ("SCM_GATEWAY__UPSTREAM__ATTEMPT_TIMEOUT", "5m"),
    ];
    let gateway = Gateway::with(&emulator, &variables).await;
    gateway.save(sample()).await.unwrap(); // calls with unverified credentials wait for each other
    assert_eq!(calls_and_limit(&gateway).await, [0, 7]);
    let gate = Arc::new(Notify::new());
    emulator.scripts([Step::HangThenServe(gate.clone()), Step::Hang]);
    let mut one = gateway.client.clone();
    let mut other = gateway.client.clone();
    let served = tokio::spawn(async move { one.save_info(sample()).await });
    emulator.wait_for_attempts(2).await;
    let cancelled = tokio::spawn(async move { other.read_info(read()).await });
    emulator.wait_for_attempts(3).await;
    assert_eq!(calls_and_limit(&gateway).await, [2, 7]);
    gate.notify_one();
    served.await.unwrap().unwrap();
    assert_eq!(calls_and_limit(&gateway).await, [1, 7]);
    cancelled.abort();
    until("the cancelled call to end", || async { calls_and_limit(&gateway).await == [0, 7] }).await;
    assert_eq!(emulator.attempts(), 3);
}
