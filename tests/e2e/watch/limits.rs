//! How many watches may be open, and how many polls they cost.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use scm_emulator::Step;
use scm_gateway::proto::WatchCertificateRequest;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::{
    ORDERS, borrowed, callers, emulator_with, next, polls_ended, request, request_of, rest, show, unread_watch, watch,
};
use crate::harness::{Gateway, assert_status, sample, until};

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
