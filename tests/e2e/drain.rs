//! Drain: calls in flight finish, then the gateway stops.

use std::sync::Arc;

use scm_emulator::Step;
use tokio::sync::Notify;
use tonic::Code;

use crate::harness::{Gateway, assert_status, emulator, in_flight, sample};

#[tokio::test]
async fn drain_finishes_calls_and_closes_the_listener() {
    let emulator = emulator().await;
    let mut gateway = Gateway::of(&emulator).await;
    let gate = Arc::new(Notify::new());
    let call = in_flight(&emulator, Step::HangThenServe(gate.clone()), gateway.client.clone()).await;

    gateway.stop();
    while tokio::net::TcpStream::connect(&gateway.addresses.server).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(gateway.admin("/readyz").await, (503, "not ready: draining\n".into()));
    assert_eq!(gateway.admin("/livez").await.0, 200);
    gate.notify_one();

    assert_eq!(call.await.unwrap().unwrap().into_inner().request_info, "success");
    gateway.stopped().await;
}

#[tokio::test]
async fn calls_that_outlast_the_drain_are_unavailable() {
    let emulator = emulator().await;
    let mut gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__DRAIN", "300ms")]).await;
    let call = in_flight(&emulator, Step::Hang, gateway.client.clone()).await;

    gateway.stop();

    assert_status(&call.await.unwrap().unwrap_err(), Code::Unavailable, "SHUTTING_DOWN", Some(1));
    gateway.stopped().await;
    emulator.wait_for_open_connections(0).await;
}

#[tokio::test]
async fn silent_connection_does_not_delay_the_stop() {
    let emulator = emulator().await;
    let mut gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__DRAIN", "1h")]).await;
    let _silent = tokio::net::TcpStream::connect(&gateway.addresses.server).await.unwrap();
    gateway.save(sample()).await.unwrap();
    gateway.stop();
    gateway.stopped().await;
}

#[tokio::test]
async fn call_that_crosses_goaway_has_the_full_drain() {
    let emulator = emulator().await;
    let mut gateway = Gateway::of(&emulator).await;
    gateway.save(sample()).await.unwrap();
    let gate = Arc::new(Notify::new());
    emulator.script(Step::HangThenServe(gate.clone()));
    gateway.stop();
    let mut client = gateway.client.clone();
    // The connection may already be closed. If the call is accepted, it finishes.
    let call = tokio::spawn(async move { client.save_info(sample()).await });
    let accepted = tokio::select! {
        () = emulator.wait_for_attempts(2) => true,
        () = gateway.stopped() => false,
    };
    if accepted {
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await; // longer than a connection may linger
        gate.notify_one();
        assert_eq!(call.await.unwrap().unwrap().into_inner().request_info, "success");
    }
}

#[tokio::test]
async fn lame_duck_still_accepts_calls() {
    let emulator = emulator().await;
    let mut gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__LAME_DUCK", "1s")]).await;
    gateway.stop();
    while gateway.admin("/readyz").await.0 == 200 {
        tokio::task::yield_now().await;
    }
    let mut client = crate::harness::client(&gateway.addresses.server).await;
    client.save_info(sample()).await.unwrap();
    gateway.stopped().await;
    assert!(tokio::net::TcpStream::connect(&gateway.addresses.server).await.is_err());
}
