//! Temporary keys from the agency of the ECS that the gateway runs on.
//!
//! One task fetches for everybody: at the start, and again once less than 40 minutes are left. Calls wait for the first
//! key at [`Target`], not here. What was fetched is used until it expires, however long the service is away; then calls
//! wait again.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use futures_util::future::Either;
use opentelemetry::{KeyValue, metrics::Meter};
use tokio::time::sleep;

use crate::{
    chance,
    clock::Clock,
    config::{Config, KeySource},
    rotation::Reloads,
    secret::Credentials,
    upstream::target::{Target, Targets},
};

mod metadata;

use metadata::{Metadata, Problem, Temporary};

/// Less than this left, and another key is fetched.
const EARLY: Duration = Duration::from_secs(40 * 60);

/// The longest sleep: the calendar may jump while the steady time does not, as after a machine was suspended. Also the
/// pause where the service goes on handing out the key in use, for it has another one only shortly before its end.
const LOOK: Duration = Duration::from_secs(60);

/// The first pause after a failure, and the longest: it doubles.
const BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// Keeps the keys of those projects fresh that have theirs from the agency, until dropped. Without such projects nobody
/// is ever asked.
pub fn look_after(
    config: &Config,
    targets: &Targets,
    clock: Clock,
    meter: &Meter,
) -> impl Future<Output = ()> + Send + 'static {
    let projects = config.projects.iter().filter(|project| matches!(project.key_source, KeySource::Agency));
    let targets: Vec<Arc<Target>> = projects.filter_map(|project| targets.get(&project.id).cloned()).collect();
    let Some(endpoint) = config.upstream.metadata_endpoint.clone().filter(|_| !targets.is_empty()) else {
        return Either::Left(std::future::ready(()));
    };
    let metadata = Arc::new(Metadata::new(endpoint));
    let fetch = move || {
        let metadata = metadata.clone();
        async move { metadata.fetch().await }
    };
    let ids = targets.iter().map(|target| target.id.clone()).collect();
    let hand_out = move |key: Option<&Credentials>| targets.iter().for_each(|target| target.replace_key(key.cloned()));
    Either::Right(Agency::new(fetch, hand_out, ids, clock, meter).run())
}

/// The task. `F` fetches a key, `H` hands it out, or that there is none.
struct Agency<F, H> {
    fetch: F,
    hand_out: H,
    clock: Clock,
    key: Option<Temporary>,
    failures: u32,
    /// Of each project.
    reloads: Vec<Reloads>,
    expiry: Arc<Expiry>,
}

impl<F, R, H> Agency<F, H>
where
    F: Fn() -> R,
    R: Future<Output = Result<Temporary, Problem>>,
    H: Fn(Option<&Credentials>),
{
    fn new(fetch: F, hand_out: H, ids: Vec<Arc<str>>, clock: Clock, meter: &Meter) -> Self {
        let expiry = Arc::<Expiry>::default();
        register(meter, &ids, &clock, &expiry);
        let reloads = ids.into_iter().map(|id| Reloads::of_key(meter, id)).collect();
        Self { fetch, hand_out, clock, key: None, failures: 0, reloads, expiry }
    }

    async fn run(mut self) {
        loop {
            let fetched = (self.fetch)();
            let pause = match self.while_it_lasts(fetched).await {
                Ok(key) if key.expires_at > self.clock.now() => self.take(key),
                Ok(_) => self.fail("the metadata service's key has expired already: is the clock right?".to_owned()),
                Err(problem) => self.fail(problem),
            };
            self.while_it_lasts(sleep(pause)).await;
            while let Some(early) = self.left().and_then(|left| left.checked_sub(EARLY)).filter(|wait| !wait.is_zero())
            {
                self.while_it_lasts(sleep(early.min(LOOK))).await;
            }
        }
    }

    /// Does `work`. If the key in use expires meanwhile, it is taken out of use at that moment.
    async fn while_it_lasts<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            let left = self.left();
            tokio::select! {
                done = &mut work => return done,
                () = sleep(left.unwrap_or_default().min(LOOK)), if left.is_some() => self.expire(),
            }
        }
    }

    /// How long the key in use is good.
    fn left(&self) -> Option<Duration> {
        let key = self.key.as_ref()?;
        Some(key.expires_at.duration_since(self.clock.now()).unwrap_or_default())
    }

    /// Uses a key from now on; the pause before the next look at it. The same one again changes nothing: one that has
    /// succeeded would have to prove itself anew.
    fn take(&mut self, key: Temporary) -> Duration {
        if std::mem::take(&mut self.failures) > 0 {
            self.reloads.iter().for_each(Reloads::recovered);
        }
        self.expiry.set(Some(key.expires_at));
        if self.key.as_ref().is_none_or(|used| used.credentials != key.credentials) {
            tracing::info!("temporary credentials refreshed");
            self.reloads.iter().for_each(Reloads::used);
            (self.hand_out)(Some(&key.credentials));
        }
        self.key = Some(key);
        (self.left().unwrap_or_default() / 2).clamp(BACKOFF, LOOK)
    }

    /// Notes a failure, in log and metric the first of several; the pause before the next try.
    fn fail(&mut self, problem: Problem) -> Duration {
        if self.failures == 0 {
            let in_use = self.key.is_some();
            tracing::warn!(
                problem,
                in_use,
                "temporary credentials refresh failed, using the current ones until they expire"
            );
            self.reloads.iter().for_each(Reloads::failed);
        }
        let doubled = BACKOFF.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        chance::about(doubled.min(MAX_BACKOFF))
    }

    fn expire(&mut self) {
        if self.left().is_some_and(|left| left.is_zero()) {
            tracing::warn!("temporary credentials expired, calls wait for new ones");
            self.key = None;
            self.expiry.set(None);
            (self.hand_out)(None);
        }
    }
}

/// When the key in use expires, for the gauge.
#[derive(Debug, Default)]
struct Expiry(Mutex<Option<SystemTime>>);

impl Expiry {
    fn set(&self, time: Option<SystemTime>) {
        *self.0.lock().expect("nothing panics while it holds the time") = time;
    }

    fn left(&self, now: SystemTime) -> Duration {
        let time = *self.0.lock().expect("nothing panics while it holds the time");
        time.and_then(|time| time.duration_since(now).ok()).unwrap_or_default()
    }
}

fn register(meter: &Meter, ids: &[Arc<str>], clock: &Clock, expiry: &Arc<Expiry>) {
    let labels: Vec<_> = ids.iter().map(|id| [KeyValue::new("scm.project_id", id.clone())]).collect();
    let (clock, expiry) = (clock.clone(), expiry.clone());
    meter
        .f64_observable_gauge("scm_gateway.credentials.time_to_expiry")
        .with_unit("s")
        .with_description("How long the temporary key is good; 0 without one")
        .with_callback(move |gauge| {
            let left = expiry.left(clock.now()).as_secs_f64();
            labels.iter().for_each(|labels| gauge.observe(left, labels));
        })
        .build();
}

#[cfg(test)]
mod tests {
    use opentelemetry::metrics::MeterProvider as _;
    use opentelemetry_sdk::metrics::SdkMeterProvider;
    use tokio::time::Instant;

    use super::*;
    use crate::clock::steady;

    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;

    /// The key that the service hands out, and the second in which that expires; by the second since the start.
    type Service = fn(u64) -> Option<(&'static str, u64)>;

    /// What happened, by the second since the start.
    #[derive(Default)]
    struct Seen {
        fetches: Mutex<Vec<u64>>,
        keys: Mutex<Vec<(u64, Option<String>)>>,
    }

    impl Seen {
        fn keys(&self) -> Vec<(u64, Option<String>)> {
            self.keys.lock().unwrap().clone()
        }

        fn fetches(&self) -> Vec<u64> {
            self.fetches.lock().unwrap().clone()
        }
    }

    /// Seconds since the start, rounded: sleeps are a millisecond long or short.
    fn since(start: Instant) -> u64 {
        (steady() - start).as_secs_f64().round() as u64
    }

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_660_017_906 + second)
    }

    fn temporary(name: &str, expires_at: u64) -> Temporary {
        let credentials = Credentials { access_key: name.to_owned(), secret_key: "SK".into(), security_token: None };
        Temporary { credentials, expires_at: at(expires_at) }
    }

    /// Runs for so many seconds against a service that answers at once, or, where it has no key, by `otherwise`.
    async fn run_with<R>(seconds: u64, service: Service, jump: fn(u64) -> u64, otherwise: fn() -> R) -> Arc<Seen>
    where
        R: Future<Output = Problem>,
    {
        let (start, seen) = (steady(), Arc::new(Seen::default()));
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
        let hand_out = {
            let seen = seen.clone();
            move |key: Option<&Credentials>| {
                let name = key.map(|key| key.access_key.clone());
                seen.keys.lock().unwrap().push((since(start), name));
            }
        };
        let clock = Clock::from_fn(move || at(0) + (steady() - start) + Duration::from_secs(jump(since(start))));
        let meter = SdkMeterProvider::default().meter("test");
        let agency = Agency::new(fetch, hand_out, vec!["p".into()], clock, &meter);
        let _ = tokio::time::timeout(Duration::from_secs(seconds), agency.run()).await;
        seen
    }

    async fn run(seconds: u64, service: Service) -> Arc<Seen> {
        run_with(seconds, service, |_| 0, || std::future::ready("it is away".to_owned())).await
    }

    fn some(second: u64, name: &str) -> (u64, Option<String>) {
        (second, Some(name.to_owned()))
    }

    #[tokio::test(start_paused = true)]
    async fn another_key_is_fetched_when_less_than_forty_minutes_are_left() {
        let seen = run(40 * HOUR, |now| Some(if now < HOUR { ("A", 24 * HOUR) } else { ("B", 48 * HOUR) })).await;
        let due = 24 * HOUR - 40 * MINUTE;
        assert_eq!(seen.fetches(), [0, due]);
        assert_eq!(seen.keys(), [some(0, "A"), some(due, "B")]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_renews_late_is_asked_every_minute_and_the_same_key_is_handed_out_once() {
        let renews = |now| Some(if now < 50 * MINUTE { ("A", HOUR) } else { ("B", 24 * HOUR) });
        let seen = run(2 * HOUR, renews).await;
        let fetches: Vec<_> = std::iter::once(0).chain((20..=50).map(|minute| minute * MINUTE)).collect();
        assert_eq!(seen.fetches(), fetches);
        assert_eq!(seen.keys(), [some(0, "A"), some(50 * MINUTE, "B")]);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_repeated_with_back_off() {
        let seen = run(10 * MINUTE, |_| None).await;
        assert_eq!(seen.keys(), []);
        let pauses: Vec<_> = seen.fetches().windows(2).map(|pair| pair[1] - pair[0]).collect();
        for (pause, expected) in pauses.iter().zip([1_u64, 2, 4, 8, 16, 32, 60, 60, 60]) {
            assert!(pause.abs_diff(expected) <= 1 + expected / 10, "{pauses:?}");
        }
        assert!((13..=18).contains(&pauses.len()), "{pauses:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_service_is_away_a_key_is_used_until_it_expires_and_no_longer() {
        let away = |now| match now {
            0 => Some(("A", HOUR)),
            1..7200 => None,
            _ => Some(("B", 24 * HOUR)),
        };
        let seen = run(3 * HOUR, away).await;
        let keys = seen.keys();
        assert_eq!(keys[..2], [some(0, "A"), (HOUR, None)]);
        let (second, name) = &keys[2];
        assert!((2 * HOUR..2 * HOUR + 70).contains(second) && name.as_deref() == Some("B"), "{keys:?}");
        assert_eq!(keys.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_expires_even_while_the_service_keeps_us_waiting() {
        let service = |now| (now == 0).then_some(("A", HOUR));
        let seen = run_with(2 * HOUR, service, |_| 0, std::future::pending).await;
        assert_eq!(seen.keys(), [some(0, "A"), (HOUR, None)]);
        assert_eq!(seen.fetches(), [0, 20 * MINUTE]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_has_expired_already_is_not_used() {
        let seen = run(10, |now| Some(if now < 5 { ("A", 0) } else { ("B", HOUR) })).await;
        let keys = seen.keys();
        assert_eq!((keys.len(), keys[0].1.as_deref()), (1, Some("B")), "{keys:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_calendar_that_jumps_is_noticed_within_a_minute() {
        let suspended = |now| if now < 5 * MINUTE { 0 } else { 30 * HOUR };
        let service = |now| Some(if now < 5 * MINUTE { ("A", 24 * HOUR) } else { ("B", 90 * HOUR) });
        let seen = run_with(HOUR, service, suspended, || std::future::ready("it is away".to_owned())).await;
        let keys = seen.keys();
        // In between there may be none: in that minute the old one expires and the new one comes.
        let ((first, name), (last, other)) = (&keys[0], &keys[keys.len() - 1]);
        assert_eq!((*first, name.as_deref(), other.as_deref()), (0, Some("A"), Some("B")), "{keys:?}");
        assert!((5 * MINUTE..=6 * MINUTE).contains(last), "{keys:?}");
    }
}
