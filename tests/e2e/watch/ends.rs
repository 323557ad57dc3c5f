//! What ends a watch besides a final status.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use scm_emulator::Step;
use tokio::time::timeout;
use tonic::{Code, Request};

use super::{FAST, TIMEOUT, emulator_with, next, request, rest, show, unread_watch, watch};
use crate::harness::{Gateway, assert_status, client, until};

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
async fn watches_of_an_evicted_connection_end() {
    let emulator = emulator_with(show("PAID")).await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__CONNECTION_MEMORY_QUOTA", "1MiB")]).await;
    let (first, second) = (gateway.client.clone(), client(&gateway.addresses.server).await);
    let mut evicted = Vec::new();
    for _ in 0..60 {
        evicted.push(watch(&first).await); // 24 KiB, and 8 KiB for each stream
    }
    let mut kept = Vec::new();
    for _ in 0..75 {
        kept.push(watch(&second).await);
    }
    for watch in &mut evicted {
        let (_, error) = rest(watch).await;
        assert_status(&error.unwrap(), Code::Unavailable, "SHUTTING_DOWN", None);
    }
    assert_eq!(gateway.metric::<usize>("scm_gateway_connections_evicted_total{reason=\"idle\"").await, 1);
    until("only the others to be open", async || gateway.metric::<usize>("scm_gateway_watches_open").await == 75).await;
}

#[tokio::test]
async fn watches_of_an_old_connection_end() {
    let emulator = emulator_with(show("PAID")).await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__MAX_CONNECTION_AGE", "1s")]).await;
    let mut old = watch(&gateway.client).await;
    assert_eq!(next(&mut old).await.unwrap().as_deref(), Some("PAID"));
    assert_status(&next(&mut old).await.unwrap_err(), Code::Unavailable, "SHUTTING_DOWN", None);
    let fresh = client(&gateway.addresses.server).await;
    assert_eq!(next(&mut watch(&fresh).await).await.unwrap().as_deref(), Some("PAID"));
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
