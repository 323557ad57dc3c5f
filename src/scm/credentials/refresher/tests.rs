//! Tests of the refresh policy with scripted services, on a paused clock.

use std::{future::pending, sync::Mutex, time::SystemTime};

use futures_util::{FutureExt as _, future::BoxFuture};
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_sdk::metrics::SdkMeterProvider;

use super::*;
use crate::{clock::monotonic, scm::credentials::source::Source};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// What the service does.
enum Reply {
    /// Returns credentials with this access key, which expire at this second.
    Issue(&'static str, u64),
    Reject,
    Fail(Option<u64>),
    Hang,
}

use Reply::{Fail, Hang, Issue, Reject};

/// What a service replies at a second since the start.
type Service = fn(u64) -> Reply;

/// A service and what happens around it, by the second since the start.
#[derive(Clone, Copy)]
struct Script {
    service: Service,
    /// How far the wall clock is ahead.
    jump: fn(u64) -> u64,
    /// When the token changes.
    token_changes: &'static [u64],
    /// When SCM rejects the credentials with this access key.
    rejections: &'static [(u64, &'static str)],
}

impl Script {
    fn of(service: Service) -> Self {
        Self { service, jump: |_| 0, token_changes: &[], rejections: &[] }
    }
}

/// The exchanges and the published changes, by the second since the start.
struct Seen {
    start: Instant,
    exchanges: Mutex<Vec<u64>>,
    /// The access key, after a `-` if the credentials expired.
    changes: Mutex<Vec<(u64, String)>>,
    leases: Mutex<Vec<(String, Arc<Lease>)>>,
    states: Mutex<Vec<status::Exchange>>,
}

impl Seen {
    /// Returns the seconds since the start, rounded: sleeps are a millisecond long or short.
    fn now(&self) -> u64 {
        (monotonic() - self.start).as_secs_f64().round() as u64
    }

    fn exchanges(&self) -> Vec<u64> {
        self.exchanges.lock().unwrap().clone()
    }

    fn pauses(&self) -> Vec<u64> {
        self.exchanges().windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    fn changes(&self) -> Vec<(u64, String)> {
        self.changes.lock().unwrap().clone()
    }

    fn publish(&self, change: Change<'_>) {
        let text = match change {
            Change::Issued(credentials, lease) => {
                self.leases.lock().unwrap().push((credentials.access_key.clone(), lease.clone()));
                credentials.access_key.clone()
            }
            Change::Expired(credentials) => format!("-{}", credentials.access_key),
            Change::Exchange(exchange) => return self.states.lock().unwrap().push(exchange),
        };
        self.changes.lock().unwrap().push((self.now(), text));
    }

    fn reject(&self, access_key: &str) {
        let leases = self.leases.lock().unwrap();
        let of_key = leases.iter().rfind(|(name, _)| name == access_key);
        of_key.expect("the credentials were issued").1.rejected.notify_one();
    }
}

struct Scripted {
    script: Script,
    seen: Arc<Seen>,
}

impl Source for Scripted {
    type Credentials = TemporaryCredentials;

    fn get(&self) -> BoxFuture<'_, Result<TemporaryCredentials, Failure>> {
        let now = self.seen.now();
        self.seen.exchanges.lock().unwrap().push(now);
        let failure = |kind| Err(Failure { kind, problem: "unavailable".to_owned() });
        let result = match (self.script.service)(now) {
            Issue(name, expires_at) => {
                let credentials =
                    Credentials { access_key: name.to_owned(), secret_key: "SK".into(), security_token: None };
                Ok(TemporaryCredentials { credentials, expires_at: at(expires_at) })
            }
            Reject => failure(FailureKind::Rejected),
            Fail(retry_after) => failure(FailureKind::Failed { retry_after: retry_after.map(Duration::from_secs) }),
            Hang => return pending().boxed(),
        };
        std::future::ready(result).boxed()
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        let now = self.seen.now();
        let next = self.script.token_changes.iter().find(|second| **second > now);
        match next {
            Some(second) => sleep_until(self.seen.start + Duration::from_secs(*second)).boxed(),
            None => pending().boxed(),
        }
    }
}

fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_660_017_906 + second)
}

/// Runs a script for so many seconds.
async fn run(seconds: u64, script: Script) -> Arc<Seen> {
    let seen = Arc::new(Seen {
        start: monotonic(),
        exchanges: Mutex::default(),
        changes: Mutex::default(),
        leases: Mutex::default(),
        states: Mutex::default(),
    });
    let clock = {
        let seen = seen.clone();
        Clock::from_fn(move || at(0) + (monotonic() - seen.start) + Duration::from_secs((script.jump)(seen.now())))
    };
    let publish = {
        let seen = seen.clone();
        move |change: Change<'_>| seen.publish(change)
    };
    let metrics = ExchangeMetrics::new(&SdkMeterProvider::default().meter("test"), "oidc");
    let refresher = Refresher::new(
        Origin { source: "oidc", project_ids: "p".to_owned() },
        Arc::new(Scripted { script, seen: seen.clone() }),
        Schedule::new(|duration| duration),
        publish,
        clock,
        metrics,
        NewestLease::default(),
    );
    let reject = async {
        for (second, access_key) in script.rejections {
            sleep_until(seen.start + Duration::from_secs(*second)).await;
            seen.reject(access_key);
        }
        pending::<()>().await;
    };
    let both = async { tokio::join!(refresher.run(), reject) };
    let _ = tokio::time::timeout(Duration::from_secs(seconds), both).await;
    seen
}

fn change(second: u64, text: &str) -> (u64, String) {
    (second, text.to_owned())
}

#[tokio::test(start_paused = true)]
async fn credentials_are_refreshed_once_the_margin_is_left() {
    let seen =
        run(40 * HOUR, Script::of(|now| if now < HOUR { Issue("A", 24 * HOUR) } else { Issue("B", 48 * HOUR) })).await;
    let due = 24 * HOUR - 40 * MINUTE;
    assert_eq!(seen.exchanges(), [0, due]);
    assert_eq!(seen.changes(), [change(0, "A"), change(due, "B"), change(24 * HOUR, "-A")]);
    let of_a_quarter = |now| match now {
        0 => Issue("A", 15 * MINUTE),
        600 => Issue("B", 25 * MINUTE),
        _ => Issue("C", 35 * MINUTE),
    };
    let seen = run(16 * MINUTE, Script::of(of_a_quarter)).await;
    assert_eq!(seen.exchanges(), [0, 10 * MINUTE]);
    assert_eq!(seen.changes(), [change(0, "A"), change(10 * MINUTE, "B"), change(15 * MINUTE, "-A")]);
}

#[tokio::test(start_paused = true)]
async fn credentials_without_an_end_are_used() {
    let seen = run(24 * HOUR, Script::of(|_| Issue("A", 250_000_000_000))).await; // the year 9944
    assert_eq!((seen.exchanges(), seen.changes()), (vec![0], vec![change(0, "A")]));
}

#[tokio::test(start_paused = true)]
async fn unchanged_credentials_are_exchanged_sooner() {
    let service = |now| if now < 55 * MINUTE { Issue("A", HOUR) } else { Issue("B", 24 * HOUR) };
    let seen = run(2 * HOUR, Script::of(service)).await;
    assert_eq!(seen.exchanges(), [0, 2400, 2800, 3067, 3244, 3363]);
    assert_eq!(seen.changes(), [change(0, "A"), change(3363, "B"), change(HOUR, "-A")]);
}

#[tokio::test(start_paused = true)]
async fn credentials_that_come_back_live_until_their_new_expiry() {
    let service = |now| match now {
        0 => Issue("A", HOUR),
        2400 => Issue("B", 45 * MINUTE),
        2600 => Issue("A", 2 * HOUR),
        _ => Issue("C", 24 * HOUR),
    };
    let seen = run(3 * HOUR, Script::of(service)).await;
    let changes = [(0, "A"), (2400, "B"), (2600, "A"), (2700, "-B"), (5667, "C"), (2 * HOUR, "-A")];
    assert_eq!(seen.changes(), changes.map(|(second, text)| change(second, text)));
    let leases = seen.leases.lock().unwrap();
    assert!(Arc::ptr_eq(&leases[0].1, &leases[2].1), "projects may still use the first one");
}

#[tokio::test(start_paused = true)]
async fn there_is_at_most_one_exchange_a_second() {
    let services: [Service; 3] =
        [|now| Issue("A", now + 1), |_| Issue("A", 20), |now| Issue(if now % 2 == 0 { "A" } else { "B" }, now + 2)];
    for service in services {
        let seen = run(30, Script::of(service)).await;
        let pauses = seen.pauses();
        assert!(pauses.len() > 5 && pauses.iter().all(|pause| *pause >= 1), "{pauses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn failures_are_retried_with_backoff() {
    let seen = run(10 * MINUTE, Script::of(|_| Fail(None))).await;
    assert_eq!(seen.changes(), []);
    assert_eq!(seen.pauses()[..9], [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    let throttled = run(2 * MINUTE, Script::of(|now| Fail((now == 0).then_some(7)))).await;
    assert_eq!(throttled.exchanges()[..4], [0, 7, 9, 13]);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_is_retried_after_five_minutes() {
    let seen = run(15 * MINUTE, Script::of(|now| if now < 10 * MINUTE { Reject } else { Issue("A", HOUR) })).await;
    assert_eq!(seen.exchanges(), [0, 5 * MINUTE, 10 * MINUTE]);
    assert_eq!(seen.changes(), [change(10 * MINUTE, "A")]);
}

#[tokio::test(start_paused = true)]
async fn a_changed_token_is_tried_at_once_after_a_rejection() {
    let script =
        Script { token_changes: &[7, 42, 1000], ..Script::of(|now| if now < 40 { Reject } else { Issue("A", HOUR) }) };
    let seen = run(30 * MINUTE, script).await;
    assert_eq!(seen.exchanges(), [0, 7, 42], "and not after a success");
    let failing = Script { token_changes: &[5], ..Script::of(|_| Fail(None)) };
    assert_eq!(run(9, failing).await.exchanges(), [0, 1, 3, 7], "nor after another failure");
}

#[tokio::test(start_paused = true)]
async fn credentials_are_used_until_expiry_during_an_outage() {
    let away = |now| match now {
        0 => Issue("A", HOUR),
        1..7200 => Fail(None),
        _ => Issue("B", 24 * HOUR),
    };
    let seen = run(3 * HOUR, Script::of(away)).await;
    let changes = seen.changes();
    assert_eq!(changes[..2], [change(0, "A"), change(HOUR, "-A")]);
    let (second, text) = &changes[2];
    assert!((2 * HOUR..2 * HOUR + 70).contains(second) && text == "B", "{changes:?}");
    assert_eq!(changes.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn credentials_expire_while_the_service_hangs() {
    let seen = run(2 * HOUR, Script::of(|now| if now == 0 { Issue("A", HOUR) } else { Hang })).await;
    assert_eq!(seen.changes(), [change(0, "A"), change(HOUR, "-A")]);
    assert_eq!(seen.exchanges(), [0, 40 * MINUTE]);
}

#[tokio::test(start_paused = true)]
async fn expired_credentials_are_a_failure() {
    let seen = run(10, Script::of(|now| if now < 5 { Issue("A", 0) } else { Issue("B", HOUR) })).await;
    assert_eq!((seen.exchanges(), seen.changes()), (vec![0, 1, 3, 7], vec![change(7, "B")]));
}

#[tokio::test(start_paused = true)]
async fn a_clock_jump_is_noticed_within_a_minute() {
    let script = Script {
        jump: |now| if now < 5 * MINUTE { 0 } else { 30 * HOUR },
        ..Script::of(|now| if now < 5 * MINUTE { Issue("A", 24 * HOUR) } else { Issue("B", 90 * HOUR) })
    };
    let changes = run(HOUR, script).await.changes();
    assert_eq!((changes.len(), &changes[0]), (3, &change(0, "A")), "{changes:?}");
    // Which comes first depends on whether the old ones expire before the new ones are fetched.
    for text in ["B", "-A"] {
        let found = changes.iter().find(|change| change.1 == text);
        assert!(found.is_some_and(|(second, _)| (5 * MINUTE..=6 * MINUTE).contains(second)), "{changes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn credentials_expire_in_time_though_the_clock_is_set_back() {
    let script = Script {
        jump: |now| if now < 10 { 2 * HOUR } else { 0 },
        ..Script::of(|now| if now == 0 { Issue("A", 2 * HOUR + 30) } else { Fail(None) })
    };
    assert_eq!(run(HOUR, script).await.changes(), [change(0, "A"), change(30, "-A")]);
}

#[tokio::test(start_paused = true)]
async fn a_later_expiry_of_the_same_credentials_is_a_new_life() {
    let service = |now| match now {
        0 => Issue("A", HOUR),
        _ => Issue("A", 24 * HOUR),
    };
    let seen = run(24 * HOUR - MINUTE, Script::of(service)).await;
    assert_eq!(seen.exchanges()[..2], [0, 40 * MINUTE]);
    assert_eq!(seen.exchanges()[2], 24 * HOUR - 40 * MINUTE);
    assert_eq!(seen.changes(), [change(0, "A")]);
    assert_eq!(seen.leases.lock().unwrap()[0].1.expires_at(), at(24 * HOUR), "projects see it");
}

#[tokio::test(start_paused = true)]
async fn a_corrected_clock_does_not_make_an_expiry_later() {
    let service = |now| Issue("A", HOUR + if now % 2 == 0 { 0 } else { 1 });
    let seen = run(HOUR - MINUTE, Script::of(service)).await;
    let left: Vec<_> = seen.exchanges().iter().map(|second| HOUR - second).collect();
    assert!(left[1..].windows(2).all(|pair| pair[1].abs_diff(pair[0] * 2 / 3) <= 1), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_rejection_by_scm_causes_one_exchange_at_once() {
    let service = |now| match now {
        0 => Issue("A", HOUR),
        1..300 => Issue("B", 2 * HOUR),
        _ => Issue("C", 3 * HOUR),
    };
    let script = Script { rejections: &[(100, "A"), (100, "A"), (100, "A"), (101, "A")], ..Script::of(service) };
    let seen = run(40 * MINUTE, script).await;
    assert_eq!(seen.exchanges(), [0, 100], "credentials that were replaced do not count");
    assert_eq!(seen.changes(), [change(0, "A"), change(100, "B")]);
    let script = Script { rejections: &[(100, "A"), (102, "B"), (200, "B")], ..Script::of(service) };
    let seen = run(40 * MINUTE, script).await;
    assert_eq!(
        seen.exchanges(),
        [0, 100, 400],
        "another exchange after five minutes, if the new ones are rejected too"
    );
    let at_the_start = Script { rejections: &[(0, "A")], ..Script::of(service) };
    assert_eq!(run(MINUTE, at_the_start).await.exchanges(), [0, 1], "at most one exchange a second");
}

#[tokio::test(start_paused = true)]
async fn a_rejection_of_expired_credentials_causes_no_exchange() {
    let script =
        Script { rejections: &[(HOUR + 1, "A")], ..Script::of(|now| if now == 0 { Issue("A", HOUR) } else { Reject }) };
    let seen = run(HOUR + 2 * MINUTE, script).await;
    assert_eq!(seen.exchanges(), [0, 40 * MINUTE, 45 * MINUTE, 50 * MINUTE, 55 * MINUTE, HOUR]);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_by_scm_does_not_shorten_a_wait_that_the_service_wants() {
    let services: [(Service, u64); 2] = [
        (|now| if now == 0 { Issue("A", HOUR) } else { Reject }, 2400 + 5 * MINUTE),
        (|now| if now == 0 { Issue("A", HOUR) } else { Fail(Some(30)) }, 2430),
    ];
    for (service, next) in services {
        let script = Script { rejections: &[(2400, "A"), (2402, "A")], ..Script::of(service) };
        assert_eq!(run(next + 1, script).await.exchanges(), [0, 2400, next]);
    }
    // Unlike the backoff.
    let failing = |now| if now == 0 { Issue("A", HOUR) } else { Fail(None) };
    let script = Script { rejections: &[(2420, "A")], ..Script::of(failing) };
    assert_eq!(run(2422, script).await.exchanges(), [0, 2400, 2401, 2403, 2407, 2415, 2420]);
}

#[tokio::test(start_paused = true)]
async fn exchanges_are_published_for_the_status() {
    let seen = run(5, Script::of(|now| if now < 2 { Reject } else { Issue("A", HOUR) })).await;
    let in_flight = status::Exchange::default();
    let rejected = status::Exchange {
        last_at: Some(at(0).into()),
        last_outcome: Some(ExchangeOutcome::Rejected),
        next_at: Some(at(5 * MINUTE).into()),
    };
    assert_eq!(*seen.states.lock().unwrap(), [in_flight, rejected]);
}
