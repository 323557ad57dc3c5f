//! The hub on a paused clock, with scripted polls.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{FutureExt as _, future::join_all};
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use tokio::time::{Instant, sleep, timeout};

use super::{Hub, Key, Limits, Poll, Watch};
use crate::{
    clock,
    error::{Error, Progress, Reason},
    proto::{Certificate, DomainProof},
};

#[cfg(feature = "shuttle")]
mod interleavings;

const INTERVAL: Duration = Duration::from_secs(30);

/// The resolution of tokio's timers.
const RESOLUTION: Duration = Duration::from_millis(1);

/// The polls of a project in flight at the same time.
const MAX_POLLS: usize = 3;

/// How long SCM takes to answer a poll.
const LATENCY: Duration = Duration::from_millis(100);

type Outcome = Result<Certificate, Error>;

/// Polls that return the outcomes of a script, the last one again and again.
#[derive(Clone, Default)]
struct Script(Arc<Scripted>);

#[derive(Default)]
struct Scripted {
    outcomes: Mutex<VecDeque<Outcome>>,
    started: Mutex<Vec<Instant>>,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
}

impl Script {
    fn new(outcomes: impl IntoIterator<Item = Outcome>) -> Self {
        let script = Self::default();
        script.0.outcomes.lock().unwrap().extend(outcomes);
        script
    }

    fn hub(&self) -> Hub<Self> {
        Hub::new(self.clone(), INTERVAL, limits(), &SdkMeterProvider::default().meter("test"))
    }

    fn polls(&self) -> usize {
        self.0.started.lock().unwrap().len()
    }

    /// Returns the times between polls, less the latency.
    fn waits(&self) -> Vec<Duration> {
        self.0.started.lock().unwrap().windows(2).map(|pair| pair[1] - pair[0] - LATENCY).collect()
    }
}

/// Counts a poll in flight, also one that is dropped.
struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Poll for Script {
    async fn poll(&self, _: &Key) -> Outcome {
        let Scripted { outcomes, started, in_flight, most_in_flight } = &*self.0;
        started.lock().unwrap().push(clock::monotonic());
        most_in_flight.fetch_max(in_flight.fetch_add(1, Relaxed) + 1, Relaxed);
        let _in_flight = InFlight(in_flight);
        sleep(LATENCY).await;
        let mut outcomes = outcomes.lock().unwrap();
        let next = if outcomes.len() > 1 { outcomes.pop_front() } else { outcomes.front().cloned() };
        drop(outcomes);
        next.expect("marker")
    }
}

fn limits() -> Limits {
    Limits {
        projects: ["p", "q"].map(Arc::from).into(),
        callers: ["x", "y"].map(Arc::from).into(),
        max_polls: MAX_POLLS,
    }
}

fn key(cert_id: &str) -> Key {
    Key { project_id: "p".into(), cert_id: cert_id.into() }
}

fn status(status: &str) -> Outcome {
    Ok(Certificate { status: status.to_owned(), ..Certificate::default() })
}

fn error(reason: Reason) -> Outcome {
    Err(Error::new(reason, Progress::Answered))
}

/// Returns what the next response says: a status, a reason, or "OK" at the end.
async fn next(watch: &mut Watch<Script>) -> String {
    match watch.next_state().await {
        Some(Ok(certificate)) => certificate.status.clone(),
        Some(Err(error)) => error.reason.name().to_owned(),
        None => "OK".to_owned(),
    }
}

async fn all(mut watch: Watch<Script>) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(result) = watch.next_state().await {
        seen.push(result.as_ref().map_or_else(|error| error.reason.name().to_owned(), |c| c.status.clone()));
        if result.is_err() {
            break;
        }
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn watchers_get_changes_of_status_and_proofs_only() {
    let with = |change: fn(&mut Certificate)| {
        let mut certificate = status("CHECKING").unwrap();
        change(&mut certificate);
        Ok(certificate)
    };
    let script = Script::new([
        with(|_| {}),
        with(|_| {}),
        with(|certificate| certificate.name = "renamed".to_owned()),
        with(|certificate| certificate.domain_proofs.push(DomainProof::default())),
        with(|certificate| certificate.domain_proofs.push(DomainProof::default())),
        status("ISSUED"),
    ]);
    let seen = all(script.hub().watch(key("a"), None)).await;
    assert_eq!(seen, ["CHECKING", "CHECKING", "ISSUED"]);
    assert_eq!(script.polls(), 6);
}

#[tokio::test(start_paused = true)]
async fn polls_come_every_interval_give_or_take_a_tenth() {
    let script = Script::new([status("CHECKING")]);
    let mut watch = script.hub().watch(key("a"), None);
    let _ = timeout(INTERVAL * 100, all_of(&mut watch)).await;
    let waits = script.waits();
    assert!((90..=110).contains(&waits.len()), "{}", waits.len());
    let allowed = INTERVAL.mul_f64(0.9)..=INTERVAL.mul_f64(1.1) + RESOLUTION;
    assert!(waits.iter().all(|wait| allowed.contains(wait)), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn certificates_that_are_watched_at_different_times_are_polled_together() {
    let script = Script::new([status("CHECKING")]);
    let hub = script.hub();
    let started = clock::monotonic();
    let mut watches = Vec::new();
    for n in 0..MAX_POLLS {
        watches.push(hub.watch(key(&n.to_string()), None));
        sleep(Duration::from_millis(120)).await;
    }
    let _ = timeout(INTERVAL * 100, join_all(watches.iter_mut().map(all_of))).await;
    let polls = script.0.started.lock().unwrap().split_off(MAX_POLLS); // without the first, which come at once
    assert!(polls.len() > 90 * MAX_POLLS, "{}", polls.len());
    for poll in polls {
        let ticks = (poll - started).div_duration_f64(Duration::from_millis(467));
        assert!(ticks.fract() < 0.01, "{ticks}"); // 5 ms
    }
}

/// Reads a watch that does not end.
async fn all_of(watch: &mut Watch<Script>) {
    while watch.next_state().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn a_second_watcher_gets_the_last_state_at_once() {
    let script = Script::new([status("CHECKING")]);
    let hub = script.hub();
    let mut first = hub.watch(key("a"), None);
    assert_eq!(next(&mut first).await, "CHECKING");
    sleep(INTERVAL / 2).await;
    let mut second = hub.watch(key("a"), None);
    assert_eq!(next(&mut second).now_or_never(), Some("CHECKING".to_owned()));
    assert_eq!(script.polls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_watchers_cost_one_poll_per_interval() {
    let script = Script::new([status("CHECKING"), status("CHECKING"), status("CHECKING"), status("ISSUED")]);
    let hub = script.hub();
    let seen = join_all((0..1000).map(|_| all(hub.watch(key("a"), None)))).await;
    assert!(seen.iter().all(|seen| *seen == ["CHECKING", "ISSUED"]), "{seen:?}");
    assert_eq!(script.polls(), 4);
}

#[tokio::test(start_paused = true)]
async fn certificates_and_projects_are_polled_separately() {
    let script = Script::new([status("CHECKING")]);
    let hub = script.hub();
    let other_project = Key { project_id: "q".into(), ..key("a") };
    let mut watches = [key("a"), key("b"), other_project].map(|key| hub.watch(key, None));
    for watch in &mut watches {
        assert_eq!(next(watch).await, "CHECKING");
    }
    assert_eq!(script.polls(), 3);
}

#[tokio::test(start_paused = true)]
async fn final_statuses_end_all_watches_and_the_polls() {
    for (last, ends) in [
        ("ISSUED", true),
        ("UNPASSED", true),
        ("REVOKED", true),
        ("EXPIRED", true),
        ("UPLOAD", true),
        ("PAID", false),
        ("CHECKING", false),
        ("issued", false),
        ("", false),
    ] {
        let script = Script::new([status(last)]);
        let hub = script.hub();
        let mut watches = [hub.watch(key("a"), None), hub.watch(key("a"), None)];
        for watch in &mut watches {
            assert_eq!(next(watch).await, last);
            let end = timeout(INTERVAL / 2, next(watch)).await;
            assert_eq!(end.ok(), ends.then(|| "OK".to_owned()), "{last}");
        }
        assert_eq!(hub.0.lock().is_empty(), ends, "{last}");
        if ends {
            assert_eq!(next(&mut hub.watch(key("a"), None)).await, last, "a new watch polls again");
            assert_eq!(script.polls(), 2);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn errors_that_may_pass_delay_the_next_poll() {
    for reason in [
        Reason::UpstreamUnavailable,
        Reason::UpstreamTls,
        Reason::CircuitOpen,
        Reason::UpstreamTimeout,
        Reason::Deadline,
        Reason::UpstreamThrottled,
        Reason::Overloaded,
        Reason::UpstreamError,
    ] {
        let failed = || error(reason);
        let script = Script::new([failed(), failed(), status("CHECKING"), failed(), status("ISSUED")]);
        let seen = all(script.hub().watch(key("a"), None)).await;
        assert_eq!(seen, ["CHECKING", "ISSUED"], "{reason:?}");
        let seconds = INTERVAL.as_secs();
        for (wait, expected) in script.waits().into_iter().zip([2, 4, seconds, 2 * seconds]) {
            let expected = Duration::from_secs(expected);
            let allowed = expected.mul_f64(0.9)..=expected.mul_f64(1.1) + RESOLUTION;
            assert!(allowed.contains(&wait), "{reason:?}: {wait:?}, expected about {expected:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn other_errors_end_all_watches_of_the_certificate() {
    for reason in [
        Reason::CertificateNotFound,
        Reason::CertificateNotOwned,
        Reason::InvalidRequest,
        Reason::UpstreamAccount,
        Reason::UpstreamCredentials,
        Reason::UpstreamConfiguration,
        Reason::UpstreamMalformed,
        Reason::UpstreamTooLarge,
    ] {
        let script = Script::new([status("CHECKING"), error(reason)]);
        let hub = script.hub();
        let seen = join_all((0..2).map(|_| all(hub.watch(key("a"), None)))).await;
        assert_eq!(seen, [["CHECKING", reason.name()]; 2]);
        assert!(hub.0.lock().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_watcher_gets_only_the_newest_state() {
    let script = Script::new([status("PAID"), status("CHECKING"), status("ISSUED")]);
    let hub = script.hub();
    let (mut slow, fast) = (hub.watch(key("a"), None), hub.watch(key("a"), None));
    assert_eq!(all(fast).await, ["PAID", "CHECKING", "ISSUED"]);
    assert_eq!((next(&mut slow).await, next(&mut slow).await), ("ISSUED".to_owned(), "OK".to_owned()));

    let script = Script::new([status("PAID"), error(Reason::CertificateNotFound)]);
    let hub = script.hub();
    let (slow, fast) = (hub.watch(key("a"), None), hub.watch(key("a"), None));
    all(fast).await;
    assert_eq!(all(slow).await, ["PAID", "CERTIFICATE_NOT_FOUND"], "the state before the error is not lost");
}

#[tokio::test(start_paused = true)]
async fn polls_stop_with_the_last_watcher() {
    let script = Script::new([status("CHECKING")]);
    let hub = script.hub();
    let (mut first, second) = (hub.watch(key("a"), None), hub.watch(key("a"), None));
    next(&mut first).await;
    drop(first);
    sleep(INTERVAL * 2).await;
    let polls = script.polls();
    assert!(polls > 1, "the other watcher is still there");
    drop(second);
    sleep(INTERVAL * 10).await;
    assert_eq!(script.polls(), polls);
    assert!(hub.0.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_poll_in_flight_is_dropped_with_the_last_watcher() {
    let script = Script::new([status("CHECKING")]);
    let hub = script.hub();
    let watch = hub.watch(key("a"), None);
    sleep(LATENCY / 2).await;
    assert_eq!(script.0.in_flight.load(Relaxed), 1);
    drop(watch);
    tokio::task::yield_now().await;
    assert_eq!(script.0.in_flight.load(Relaxed), 0);
    assert_eq!(next(&mut hub.watch(key("a"), None)).await, "CHECKING", "a new watch polls again");
}

#[test]
fn watches_end_with_the_runtime_of_the_task() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let hub = Script::new([status("CHECKING")]).hub();
    let mut watch = {
        let runtime = runtime();
        let _entered = runtime.enter();
        hub.watch(key("a"), None)
    };
    assert!(hub.0.lock().is_empty());
    assert_eq!(runtime().block_on(next(&mut watch)), "SHUTTING_DOWN");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_follows_the_last_one_polls_again() {
    let script = Script::new([status("CHECKING")]);
    let hub = script.hub();
    let mut first = hub.watch(key("a"), None);
    next(&mut first).await;
    drop(first);
    assert!(hub.0.lock().is_empty());
    let mut second = hub.watch(key("a"), None); // before the task of the first one is dropped
    assert_eq!(next(&mut second).await, "CHECKING");
    let _ = timeout(INTERVAL * 3, all_of(&mut second)).await;
    assert!((4..=5).contains(&script.polls()), "{}", script.polls());
    assert_eq!(hub.0.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn polls_in_flight_are_limited_for_each_project() {
    let script = Script::new([status("CHECKING")]);
    let hub = script.hub();
    let mut watches: Vec<_> = (0..10 * MAX_POLLS).map(|number| hub.watch(key(&number.to_string()), None)).collect();
    let mut other_project = hub.watch(Key { project_id: "q".into(), ..key("a") }, None);
    let started = clock::monotonic();
    assert_eq!(next(&mut other_project).await, "CHECKING");
    assert!(started.elapsed() < LATENCY * 2, "it does not wait for the polls of another project");
    for watch in &mut watches {
        assert_eq!(next(watch).await, "CHECKING");
    }
    assert_eq!(script.0.most_in_flight.load(Relaxed), MAX_POLLS + 1);
    assert!(started.elapsed() < LATENCY * 11);
}

#[tokio::test(start_paused = true)]
async fn one_caller_leaves_half_of_the_permits_to_others() {
    let [x, y] = ["x", "y"].map(Arc::<str>::from);
    for (callers, both_at_once) in
        [(BTreeSet::from([x.clone(), y.clone()]), true), (BTreeSet::from([x.clone()]), false)]
    {
        let script = Script::new([status("CHECKING")]);
        let limits = Limits { callers, max_polls: 4, ..limits() };
        let hub = Hub::new(script.clone(), INTERVAL, limits, &SdkMeterProvider::default().meter("test"));
        let _many: Vec<_> = (0..100).map(|number| hub.watch(key(&number.to_string()), Some(&x))).collect();
        let mut other = hub.watch(key("a"), Some(&y));
        let started = clock::monotonic();
        assert_eq!(next(&mut other).await, "CHECKING");
        assert_eq!(started.elapsed() < LATENCY * 2, both_at_once);
        assert_eq!(script.0.most_in_flight.load(Relaxed), if both_at_once { 3 } else { 4 });
    }
}

#[tokio::test(start_paused = true)]
async fn metrics_count_certificates_by_their_last_poll_and_polls_that_wait() {
    let registry = prometheus::Registry::new();
    let reader = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build().unwrap();
    let meters = SdkMeterProvider::builder().with_reader(reader).build();
    let failed = || error(Reason::UpstreamUnavailable);
    let script = Script::new([status("CHECKING"), failed(), failed()]);
    let hub = Hub::new(script, INTERVAL, Limits { max_polls: 1, ..limits() }, &meters.meter("test"));
    let values = || {
        let metrics = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let value = |series: &str| {
            let lines =
                metrics.lines().filter(|line| line.starts_with(series) && line.contains("scm_project_id=\"p\""));
            lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum::<u64>()
        };
        let certificates = |last| value(&format!("scm_gateway_watches_certificates{{last_poll=\"{last}\""));
        let [none, succeeded, failed] = ["none", "succeeded", "failed"].map(certificates);
        [none, succeeded, failed, value("scm_gateway_watches_waiting_polls")]
    };
    assert_eq!(values(), [0, 0, 0, 0]);
    let watches = ["a", "b", "c"].map(|id| hub.watch(key(id), None));
    sleep(LATENCY / 2).await;
    assert_eq!(values(), [3, 0, 0, 2], "one poll in flight");
    sleep(LATENCY).await;
    assert_eq!(values(), [2, 1, 0, 1]);
    sleep(LATENCY * 2).await;
    assert_eq!(values(), [0, 1, 2, 0]);
    drop(watches);
    tokio::task::yield_now().await;
    assert_eq!(values(), [0, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_poll_ends_its_watches() {
    let script = Script::new([]);
    let hub = script.hub();
    let seen = join_all((0..2).map(|_| all(hub.watch(key("a"), None)))).await;
    assert_eq!(seen, [["PANIC"]; 2]);
    assert!(hub.0.lock().is_empty(), "a new watch polls again");
}
