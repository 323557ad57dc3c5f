//! The page `/metrics`: the metrics of retries.

use std::time::{Duration, SystemTime};

use scm_emulator::{Reply, SAMPLE_PROJECT, Step};
use scm_gateway::clock::Clock;

use crate::harness::{Gateway, emulator, environment, sample, value_of};

/// Returns the retries so far by their reason.
async fn retries(gateway: &Gateway) -> [u64; 3] {
    let (_, page) = gateway.admin("/metrics").await;
    let of = |reason: &str| {
        let labels = format!("scm_project_id=\"{SAMPLE_PROJECT}\",scm_reason=\"{reason}\"");
        value_of(&page, &format!("scm_gateway_retries_total{{{labels}"))
    };
    let found = page.lines().filter(|line| line.starts_with("scm_gateway_retries_total{")).count();
    assert_eq!(found, 3, "{page}");
    ["UPSTREAM_UNAVAILABLE", "UPSTREAM_TIMEOUT", "UPSTREAM_CREDENTIALS"].map(of)
}

#[tokio::test]
async fn retries_are_counted_by_the_reason_before() {
    let emulator = emulator().await;
    let variables =
        [("SCM_GATEWAY__UPSTREAM__ATTEMPT_TIMEOUT", "200ms"), ("SCM_GATEWAY__UPSTREAM__CIRCUIT_MAX_FAILURES", "1000")];
    let gateway = Gateway::with(&emulator, &variables).await;
    assert_eq!(retries(&gateway).await, [0, 0, 0], "series exist from the start");
    gateway.save(sample()).await.unwrap();
    let status = |status| Step::Reply(Reply::json(status, "{}"));
    let table = [
        (vec![], true, [0, 0, 0]),
        (vec![status(503)], true, [1, 0, 0]),
        (vec![Step::Close, status(504)], true, [1, 1, 0]),
        (vec![Step::Hang], true, [0, 1, 0]),
        (vec![status(500)], false, [0, 0, 0]),
        (vec![Step::Close, Step::Close, Step::Close], false, [2, 0, 0]),
    ];
    let mut total = [0; 3];
    for (row, (steps, succeeds, counted)) in table.into_iter().enumerate() {
        emulator.scripts(steps);
        let before = emulator.attempts();
        assert_eq!(gateway.save(sample()).await.is_ok(), succeeds, "row {row}");
        total = std::array::from_fn(|reason| total[reason] + counted[reason]);
        assert_eq!(retries(&gateway).await, total, "row {row}");
        assert_eq!(counted.iter().sum::<u64>() + 1, (emulator.attempts() - before) as u64, "row {row}");
    }
    assert_eq!(gateway.metric::<u64>("scm_gateway_retry_budget_exhausted_total").await, 0);
    let (before, calls) = (emulator.attempts(), 50);
    emulator.scripts((0..3 * calls).map(|_| status(503)));
    for _ in 0..calls {
        gateway.save(sample()).await.unwrap_err();
    }
    let attempts = emulator.attempts() - before;
    let exhausted = gateway.metric::<usize>("scm_gateway_retry_budget_exhausted_total").await;
    assert!((1..=calls).contains(&exhausted), "{exhausted}");
    assert_eq!(retries(&gateway).await[0], total[0] + (attempts - calls) as u64);
}

#[tokio::test]
async fn a_request_signed_again_counts_as_a_retry() {
    let emulator = emulator().await;
    let time = || SystemTime::now() - Duration::from_secs(1200);
    let gateway = Gateway::start(environment(&emulator.endpoint(), &[]), Clock::from_fn(time)).await;
    for _ in 0..2 {
        gateway.save(sample()).await.unwrap();
        assert_eq!(retries(&gateway).await, [0, 0, 1]);
    }
}
