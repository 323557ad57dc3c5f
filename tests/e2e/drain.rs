//! The end of a gateway: calls in flight finish, then nothing is left.

use std::sync::Arc;

use scm_emulator::Step;
use tokio::sync::Notify;
use tonic::Code;

use crate::harness::{Gateway, assert_status, emulator, in_flight, sample};

#[tokio::test]
async fn calls_in_flight_finish_and_new_connections_are_refused() {
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
async fn calls_that_outlast_the_drain_are_told_to_call_again() {
    let emulator = emulator().await;
    let mut gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__DRAIN", "300ms")]).await;
    let call = in_flight(&emulator, Step::Hang, gateway.client.clone()).await;

    gateway.stop();

    assert_status(&call.await.unwrap().unwrap_err(), Code::Unavailable, "SHUTTING_DOWN", Some(1));
    gateway.stopped().await;
    emulator.wait_for_open_connections(0).await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_does_not_hold_the_end_up() {
    let emulator = emulator().await;
    let mut gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__DRAIN", "1h")]).await;
    let _silent = tokio::net::TcpStream::connect(&gateway.addresses.server).await.unwrap();
    gateway.save(sample()).await.unwrap();
    gateway.stop();
    gateway.stopped().await;
}

#[tokio::test]
async fn a_call_that_comes_while_goaway_is_on_its_way_has_the_whole_drain() {
    let emulator = emulator().await;
    let mut gateway = Gateway::of(&emulator).await;
    gateway.save(sample()).await.unwrap();
    let gate = Arc::new(Notify::new());
    emulator.script(Step::HangThenServe(gate.clone()));
    gateway.stop();
    let mut client = gateway.client.clone();
    // It may be refused, for the connection may be gone; but once it is taken, it is finished.
    let call = tokio::spawn(async move { client.save_info(sample()).await });
    let taken = tokio::select! {
        () = emulator.wait_for_attempts(2) => true,
        () = gateway.stopped() => false,
    };
    if taken {
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await; // longer than a connection may linger
        gate.notify_one();
        assert_eq!(call.await.unwrap().unwrap().into_inner().request_info, "success");
    }
}

#[tokio::test]
async fn for_a_while_after_health_has_turned_calls_are_still_taken() {
    let emulator = emulator().await;
    let mut gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__LAME_DUCK", "1s")]).await;
    gateway.stop();
    while gateway.admin("/readyz").await.0 == 200 {
        tokio::task::yield_now().await;
    }
    let mut late = crate::harness::client(&gateway.addresses.server).await;
    late.save_info(sample()).await.unwrap();
    gateway.stopped().await;
    assert!(tokio::net::TcpStream::connect(&gateway.addresses.server).await.is_err());
}
