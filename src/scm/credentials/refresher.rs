//! Refreshes temporary credentials from the agency of the ECS that the gateway runs on.
//!
//! One task fetches for all projects: at the start, and again once less than `REFRESH_MARGIN` is left. Calls wait for the
//! first credentials in [`Project`], not here. Credentials stay in use until they expire, even if the metadata service is
//! unavailable; then calls wait again.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use futures_util::future::Either;
use opentelemetry::{KeyValue, metrics::Meter};
use tokio::time::sleep;

use super::metadata_service::{FetchError, MetadataService, TemporaryCredentials};
use crate::{
    clock::Clock,
    config::{Endpoint, secret::Credentials},
    jitter,
    ops::telemetry::reload_metrics::{ReloadMetrics, ReloadState},
    scm::client::project::Project,
};

/// Credentials are refreshed when less than this is left.
const REFRESH_MARGIN: Duration = Duration::from_secs(40 * 60);

/// The longest sleep, because the wall clock may jump while the monotonic clock does not, as after a suspend. Also the poll
/// interval while the metadata service still returns the current credentials, which it renews only shortly before their
/// expiry.
const MAX_SLEEP: Duration = Duration::from_secs(60);

/// The first and the longest backoff after a failure.
const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// Refreshes the credentials of these projects until dropped. Without projects or without an endpoint, nothing is sent.
pub(crate) fn refresh(
    endpoint: Option<Endpoint>,
    projects: Vec<Arc<Project>>,
    clock: Clock,
    meter: &Meter,
) -> impl Future<Output = ()> + Send + 'static {
    let Some(endpoint) = endpoint.filter(|_| !projects.is_empty()) else {
        return Either::Left(std::future::ready(()));
    };
    let service = Arc::new(MetadataService::new(endpoint));
    let fetch = move || {
        let service = service.clone();
        async move { service.fetch().await }
    };
    let reloads = projects.iter().map(|project| (project.id.clone(), project.reload_state.clone())).collect();
    let publish = move |change: Change<'_>| {
        for project in &projects {
            match change {
                Change::Fetched(TemporaryCredentials { credentials, expires_at }) => {
                    project.install_credentials(credentials.clone(), Some(*expires_at));
                }
                Change::Expired(credentials) => project.remove_credentials(credentials),
            }
        }
    };
    Either::Right(Refresher::new(fetch, publish, reloads, clock, meter).run())
}

/// A change of the credentials that projects may use.
#[derive(Debug, Clone, Copy)]
enum Change<'a> {
    /// There are new credentials. The previous ones may be used until they expire.
    Fetched(&'a TemporaryCredentials),
    /// These credentials must not be used any more.
    Expired(&'a Credentials),
}

/// The refresh task. `F` fetches credentials, `P` publishes changes.
struct Refresher<F, P> {
    fetch: F,
    publish: P,
    clock: Clock,
    current: Option<TemporaryCredentials>,
    /// Credentials from before the current ones that have not expired.
    previous: Vec<TemporaryCredentials>,
    failures: u32,
    /// One for each project.
    metrics: Vec<ReloadMetrics>,
    expiry: Arc<Expiry>,
}

impl<F, R, P> Refresher<F, P>
where
    F: Fn() -> R,
    R: Future<Output = Result<TemporaryCredentials, FetchError>>,
    P: Fn(Change<'_>),
{
    /// Creates the task of the projects with these ids.
    fn new(fetch: F, publish: P, reloads: Vec<(Arc<str>, ReloadState)>, clock: Clock, meter: &Meter) -> Self {
        let expiry = Arc::<Expiry>::default();
        register_metrics(meter, reloads.iter().map(|(id, _)| id), &clock, &expiry);
        let metrics = reloads.into_iter().map(|(id, state)| ReloadMetrics::of_credentials(meter, id, state)).collect();
        Self { fetch, publish, clock, current: None, previous: Vec::new(), failures: 0, metrics, expiry }
    }

    async fn run(mut self) {
        loop {
            let fetched = (self.fetch)();
            let pause = match self.until_expiry(fetched).await {
                Ok(fetched) if fetched.expires_at > self.clock.now() => self.install(fetched),
                Ok(_) => self.fail(&"the metadata service returned expired credentials: check the clock".to_owned()),
                Err(error) => self.fail(&error),
            };
            self.until_expiry(sleep(pause)).await;
            while let Some(wait) = self.remaining().and_then(|left| left.checked_sub(REFRESH_MARGIN))
                && !wait.is_zero()
            {
                self.until_expiry(sleep(wait.min(MAX_SLEEP))).await;
            }
        }
    }

    /// Does `work`. Credentials that expire meanwhile are removed at that moment.
    async fn until_expiry<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            let remaining =
                self.previous.iter().chain(&self.current).map(|credentials| self.validity(credentials)).min();
            tokio::select! {
                done = &mut work => return done,
                () = sleep(remaining.unwrap_or_default().min(MAX_SLEEP)), if remaining.is_some() => self.expire(),
            }
        }
    }

    /// Returns how long the current credentials are valid.
    fn remaining(&self) -> Option<Duration> {
        self.current.as_ref().map(|current| self.validity(current))
    }

    fn validity(&self, credentials: &TemporaryCredentials) -> Duration {
        credentials.expires_at.duration_since(self.clock.now()).unwrap_or_default()
    }

    /// Installs credentials and returns the pause before the next check. The same credentials are not published again,
    /// because verified credentials would become unverified.
    fn install(&mut self, fetched: TemporaryCredentials) -> Duration {
        if std::mem::take(&mut self.failures) > 0 {
            self.metrics.iter().for_each(ReloadMetrics::recovered);
        }
        self.expiry.set(Some(fetched.expires_at));
        if self.current.as_ref().is_none_or(|current| current.credentials != fetched.credentials) {
            tracing::info!("temporary credentials refreshed");
            self.metrics.iter().for_each(ReloadMetrics::applied);
            self.previous.extend(self.current.take());
            (self.publish)(Change::Fetched(&fetched));
        }
        self.current = Some(fetched);
        (self.remaining().unwrap_or_default() / 2).clamp(INITIAL_BACKOFF, MAX_SLEEP)
    }

    /// Records a failure and returns the backoff before the next try. Only the first of several is logged and counted.
    fn fail(&mut self, problem: &FetchError) -> Duration {
        if self.failures == 0 {
            let in_use = self.current.is_some();
            tracing::warn!(
                problem,
                in_use,
                "temporary credentials refresh failed, using the current ones until they expire"
            );
            self.metrics.iter().for_each(ReloadMetrics::failed);
        }
        let doubled = INITIAL_BACKOFF.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        jitter::spread(doubled.min(MAX_BACKOFF))
    }

    fn expire(&mut self) {
        let now = self.clock.now();
        let is_expired = |credentials: &mut TemporaryCredentials| credentials.expires_at <= now;
        for expired in self.previous.extract_if(.., is_expired) {
            (self.publish)(Change::Expired(&expired.credentials));
        }
        if let Some(expired) = self.current.take_if(is_expired) {
            tracing::warn!("temporary credentials expired, calls wait for new ones");
            self.expiry.set(None);
            (self.publish)(Change::Expired(&expired.credentials));
        }
    }
}

/// The expiry of the current credentials, for the gauge.
#[derive(Debug, Default)]
struct Expiry(Mutex<Option<SystemTime>>);

impl Expiry {
    fn set(&self, time: Option<SystemTime>) {
        *self.0.lock().expect("no panic while the lock is held") = time;
    }

    fn remaining(&self, now: SystemTime) -> Duration {
        let time = *self.0.lock().expect("no panic while the lock is held");
        time.and_then(|time| time.duration_since(now).ok()).unwrap_or_default()
    }
}

fn register_metrics<'a>(meter: &Meter, ids: impl Iterator<Item = &'a Arc<str>>, clock: &Clock, expiry: &Arc<Expiry>) {
    let labels: Vec<_> = ids.map(|id| [KeyValue::new("scm.project_id", id.clone())]).collect();
    let clock = clock.clone();
    let expiry = expiry.clone();
    meter
        .f64_observable_gauge("scm_gateway.credentials.time_to_expiry")
        .with_unit("s")
        .with_description("Time until the temporary credentials expire; 0 without credentials")
        .with_callback(move |gauge| {
            let remaining = expiry.remaining(clock.now()).as_secs_f64();
            labels.iter().for_each(|labels| gauge.observe(remaining, labels));
        })
        .build();
}

#[cfg(test)]
mod tests {
    use opentelemetry::metrics::MeterProvider as _;
    use opentelemetry_sdk::metrics::SdkMeterProvider;
    use tokio::time::Instant;

    use super::*;
    use crate::clock::monotonic;

    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;

    /// The access key that the service returns and the second of its expiry, by the second since the start.
    type Service = fn(u64) -> Option<(&'static str, u64)>;

    /// The fetches and the published changes, by the second since the start: the access key, after a `-` if it expired.
    #[derive(Default)]
    struct Seen {
        fetches: Mutex<Vec<u64>>,
        changes: Mutex<Vec<(u64, String)>>,
    }

    impl Seen {
        fn changes(&self) -> Vec<(u64, String)> {
            self.changes.lock().unwrap().clone()
        }

        fn fetches(&self) -> Vec<u64> {
            self.fetches.lock().unwrap().clone()
        }
    }

    /// Seconds since the start, rounded: sleeps are a millisecond long or short.
    fn since(start: Instant) -> u64 {
        (monotonic() - start).as_secs_f64().round() as u64
    }

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_660_017_906 + second)
    }

    fn temporary(name: &str, expires_at: u64) -> TemporaryCredentials {
        let credentials = Credentials { access_key: name.to_owned(), secret_key: "SK".into(), security_token: None };
        TemporaryCredentials { credentials, expires_at: at(expires_at) }
    }

    /// Runs for so many seconds against a service that responds at once, or, without credentials, with `otherwise`.
    async fn run_with<R>(seconds: u64, service: Service, jump: fn(u64) -> u64, otherwise: fn() -> R) -> Arc<Seen>
    where
        R: Future<Output = FetchError>,
    {
        let (start, seen) = (monotonic(), Arc::new(Seen::default()));
        let fetch = {
            let seen = seen.clone();
            move || {
                seen.fetches.lock().unwrap().push(since(start));
                async move {
                    match service(since(start)) {
                        Some((name, expires_at)) => Ok(temporary(name, expires_at)),
                        None => Err(otherwise().await),
                    }
                }
            }
        };
        let publish = {
            let seen = seen.clone();
            move |change: Change<'_>| {
                let text = match change {
                    Change::Fetched(fetched) => fetched.credentials.access_key.clone(),
                    Change::Expired(credentials) => format!("-{}", credentials.access_key),
                };
                seen.changes.lock().unwrap().push((since(start), text));
            }
        };
        let clock = Clock::from_fn(move || at(0) + (monotonic() - start) + Duration::from_secs(jump(since(start))));
        let meter = SdkMeterProvider::default().meter("test");
        let refresher = Refresher::new(fetch, publish, vec![("p".into(), ReloadState::default())], clock, &meter);
        let _ = tokio::time::timeout(Duration::from_secs(seconds), refresher.run()).await;
        seen
    }

    async fn run(seconds: u64, service: Service) -> Arc<Seen> {
        run_with(seconds, service, |_| 0, || std::future::ready("unavailable".to_owned())).await
    }

    fn change(second: u64, text: &str) -> (u64, String) {
        (second, text.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_are_refreshed_forty_minutes_early() {
        let seen = run(40 * HOUR, |now| Some(if now < HOUR { ("A", 24 * HOUR) } else { ("B", 48 * HOUR) })).await;
        let due = 24 * HOUR - 40 * MINUTE;
        assert_eq!(seen.fetches(), [0, due]);
        assert_eq!(seen.changes(), [change(0, "A"), change(due, "B"), change(24 * HOUR, "-A")]);
    }

    #[tokio::test(start_paused = true)]
    async fn late_renewal_is_polled_every_minute() {
        let renews = |now| Some(if now < 50 * MINUTE { ("A", HOUR) } else { ("B", 24 * HOUR) });
        let seen = run(2 * HOUR, renews).await;
        let fetches: Vec<_> = std::iter::once(0).chain((20..=50).map(|minute| minute * MINUTE)).collect();
        assert_eq!(seen.fetches(), fetches);
        assert_eq!(seen.changes(), [change(0, "A"), change(50 * MINUTE, "B"), change(HOUR, "-A")]);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_retried_with_backoff() {
        let seen = run(10 * MINUTE, |_| None).await;
        assert_eq!(seen.changes(), []);
        let pauses: Vec<_> = seen.fetches().windows(2).map(|pair| pair[1] - pair[0]).collect();
        for (pause, expected) in pauses.iter().zip([1_u64, 2, 4, 8, 16, 32, 60, 60, 60]) {
            assert!(pause.abs_diff(expected) <= 1 + expected / 10, "{pauses:?}");
        }
        assert!((13..=18).contains(&pauses.len()), "{pauses:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_are_used_until_expiry_during_an_outage() {
        let away = |now| match now {
            0 => Some(("A", HOUR)),
            1..7200 => None,
            _ => Some(("B", 24 * HOUR)),
        };
        let seen = run(3 * HOUR, away).await;
        let changes = seen.changes();
        assert_eq!(changes[..2], [change(0, "A"), change(HOUR, "-A")]);
        let (second, text) = &changes[2];
        assert!((2 * HOUR..2 * HOUR + 70).contains(second) && text == "B", "{changes:?}");
        assert_eq!(changes.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_expire_while_the_service_hangs() {
        let service = |now| (now == 0).then_some(("A", HOUR));
        let seen = run_with(2 * HOUR, service, |_| 0, std::future::pending).await;
        assert_eq!(seen.changes(), [change(0, "A"), change(HOUR, "-A")]);
        assert_eq!(seen.fetches(), [0, 20 * MINUTE]);
    }

    #[tokio::test(start_paused = true)]
    async fn expired_credentials_are_not_used() {
        let seen = run(10, |now| Some(if now < 5 { ("A", 0) } else { ("B", HOUR) })).await;
        let changes = seen.changes();
        assert_eq!((changes.len(), changes[0].1.as_str()), (1, "B"), "{changes:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_jump_is_noticed_within_a_minute() {
        let suspended = |now| if now < 5 * MINUTE { 0 } else { 30 * HOUR };
        let service = |now| Some(if now < 5 * MINUTE { ("A", 24 * HOUR) } else { ("B", 90 * HOUR) });
        let seen = run_with(HOUR, service, suspended, || std::future::ready("unavailable".to_owned())).await;
        let changes = seen.changes();
        assert_eq!((changes.len(), &changes[0]), (3, &change(0, "A")), "{changes:?}");
        // Which comes first depends on whether the old ones expire before the new ones are fetched.
        for text in ["B", "-A"] {
            let found = changes.iter().find(|change| change.1 == text);
            assert!(found.is_some_and(|(second, _)| (5 * MINUTE..=6 * MINUTE).contains(second)), "{changes:?}");
        }
    }
}
