//! Client-side throttling: after a 429 the project's calls are rejected for a cooldown, then one probe is sent.
//!
//! The cooldown is SCM's `Retry-After`. Without one, which is usual, it is one second and doubles with each further 429.
//! Other calls are rejected until the probe succeeds, because SCM would throttle them together again.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    clock::{self, Moment},
    error::{Error, Progress, Reason},
    jitter,
    ops::status,
    sync::{Mutex, MutexGuard},
};

/// The first and the longest cooldown without a `Retry-After`. SCM's FAQ advises seconds, its quotas count by the minute.
const INITIAL_COOLDOWN: Duration = Duration::from_secs(1);
const MAX_COOLDOWN: Duration = Duration::from_secs(4);

/// The longest `Retry-After` that is honored.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// The time after which another call may probe if the probe has not finished.
const PROBE_TIME: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<Option<Cooldown>>);

#[derive(Debug, Clone, Copy)]
struct Cooldown {
    /// Until then no request is sent, except the probe.
    until: Instant,
    /// The cooldown after the next 429.
    next: Duration,
    probing: bool,
}

impl Throttle {
    /// Returns the remaining cooldown as an error, if there is one.
    pub(super) fn check(&self, now: Instant) -> Result<(), Duration> {
        self.lock().map_or(Ok(()), |cooldown| remaining(cooldown, now))
    }

    /// Allows a request, which is the probe if a cooldown has just ended, or returns the remaining cooldown.
    pub(super) fn try_acquire(&self) -> Result<(), Duration> {
        if let Some(cooldown) = &mut *self.lock() {
            let now = clock::monotonic();
            remaining(*cooldown, now)?;
            cooldown.until = now + PROBE_TIME;
            cooldown.probing = true;
        }
        Ok(())
    }

    /// Records the result of an attempt.
    pub(super) fn record<R>(&self, result: &Result<R, Error>) {
        match result {
            Err(error) if error.reason == Reason::UpstreamThrottled => self.on_throttled(error.retry_after),
            // An unreachable SCM does not throttle. The circuit breaker counts that failure.
            Ok(_) | Err(Error { reason: Reason::UpstreamUnavailable | Reason::UpstreamTls, .. }) => self.on_success(),
            Err(error) if error.progress == Progress::Answered => self.on_success(),
            Err(_) => {}
        }
    }

    /// Starts a cooldown.
    fn on_throttled(&self, retry_after: Option<Duration>) {
        let mut cooldown = self.lock();
        let now = clock::monotonic();
        let retry_after = retry_after.map(|wait| wait.min(MAX_RETRY_AFTER));
        match &mut *cooldown {
            // The request was sent before the cooldown started.
            Some(cooldown) if !cooldown.probing && now < cooldown.until => {
                cooldown.until = cooldown.until.max(now + retry_after.unwrap_or_default());
            }
            cooldown => {
                let current = cooldown.map_or(INITIAL_COOLDOWN, |cooldown| cooldown.next);
                let wait = retry_after.unwrap_or_else(|| jitter::spread(current));
                let next = (current * 2).min(MAX_COOLDOWN);
                *cooldown = Some(Cooldown { until: now + wait, next, probing: false });
            }
        }
    }

    /// Ends the cooldown if the probe got any response other than 429, or could not connect.
    fn on_success(&self) {
        self.lock().take_if(|cooldown| cooldown.probing);
    }

    /// Returns a guard for one attempt. If the attempt was the probe and ends without a result, the next call may probe.
    pub(super) fn attempt(&self) -> AttemptGuard<'_> {
        AttemptGuard(self)
    }

    /// Returns the state for the status page.
    pub(super) fn status(&self, moment: &Moment) -> status::Cooldown {
        let (state, until) = match *self.lock() {
            None => (status::CooldownState::None, None),
            Some(Cooldown { until, .. }) if until <= moment.monotonic => (status::CooldownState::ProbeDue, None),
            Some(Cooldown { until, probing: true, .. }) => (status::CooldownState::Probing, Some(until)),
            Some(Cooldown { until, .. }) => (status::CooldownState::Active, Some(until)),
        };
        status::Cooldown { state, until: until.map(|until| moment.wall_time(until).into()) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Cooldown>> {
        self.0.lock().expect("no panic while the lock is held")
    }
}

pub(super) struct AttemptGuard<'a>(&'a Throttle);

impl Drop for AttemptGuard<'_> {
    fn drop(&mut self) {
        if let Some(cooldown) = self.0.lock().as_mut().filter(|cooldown| cooldown.probing) {
            cooldown.until = cooldown.until.min(clock::monotonic());
        }
    }
}

fn remaining(cooldown: Cooldown, now: Instant) -> Result<(), Duration> {
    let wait = cooldown.until.saturating_duration_since(now);
    if wait.is_zero() { Ok(()) } else { Err(wait) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::{PROBE_TIME, Throttle};
    use crate::{
        clock::{Clock, Moment, monotonic},
        ops::status::CooldownState,
    };

    const MOMENT: Duration = Duration::from_millis(1);

    /// Returns the state that the status page shows, and whether it has the end of the wait.
    fn state(throttle: &Throttle) -> (CooldownState, bool) {
        let cooldown = throttle.status(&Moment::now(&Clock::system()));
        (cooldown.state, cooldown.until.is_some())
    }

    fn seconds(number: u64) -> Option<Duration> {
        Some(Duration::from_secs(number))
    }

    #[tokio::test(start_paused = true)]
    async fn the_cooldown_is_as_long_as_retry_after() {
        for (retry_after, wait) in [(7, 7), (86_400, 60)] {
            let throttle = Throttle::default();
            assert_eq!(throttle.try_acquire(), Ok(()));
            let wait = Duration::from_secs(wait);
            throttle.on_throttled(seconds(retry_after));
            assert_eq!((throttle.check(monotonic()), throttle.try_acquire()), (Err(wait), Err(wait)));
            throttle.on_throttled(None);
            advance(wait - MOMENT).await;
            assert!(throttle.try_acquire().is_err(), "a shorter cooldown does not end a longer one");
            advance(MOMENT).await;
            assert_eq!((throttle.check(monotonic()), throttle.try_acquire()), (Ok(()), Ok(())));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_retry_after_the_cooldown_doubles() {
        let throttle = Throttle::default();
        for about in [1, 2, 4, 4] {
            throttle.on_throttled(None);
            let wait = throttle.check(monotonic()).unwrap_err();
            let about = Duration::from_secs(about);
            assert!(wait >= about.mul_f64(0.9) && wait <= about.mul_f64(1.1), "{wait:?}");
            assert_eq!(throttle.try_acquire(), Err(wait));
            throttle.on_throttled(None);
            assert_eq!(throttle.try_acquire(), Err(wait), "a request sent before the cooldown changes nothing");
            throttle.on_success();
            assert_eq!(throttle.try_acquire(), Err(wait), "nor does a success from before");
            advance(wait).await;
            assert_eq!(throttle.try_acquire(), Ok(()));
        }
        throttle.on_success();
        throttle.on_throttled(None);
        assert!(throttle.check(monotonic()).unwrap_err() <= Duration::from_millis(1100));
    }

    #[tokio::test(start_paused = true)]
    async fn the_others_follow_after_the_probe_was_served() {
        let throttle = Throttle::default();
        throttle.on_throttled(None);
        assert_eq!(state(&throttle), (CooldownState::Active, true));
        advance(throttle.check(monotonic()).unwrap_err()).await;
        assert_eq!(state(&throttle), (CooldownState::ProbeDue, false));
        assert_eq!(throttle.try_acquire(), Ok(()));
        assert_eq!((throttle.check(monotonic()), throttle.try_acquire()), (Err(PROBE_TIME), Err(PROBE_TIME)));
        assert_eq!(state(&throttle), (CooldownState::Probing, true));
        throttle.on_success();
        assert_eq!(state(&throttle), (CooldownState::None, false));
        assert_eq!([throttle.try_acquire(), throttle.try_acquire()], [Ok(()); 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_probe_lets_the_next_call_probe() {
        let throttle = Throttle::default();
        throttle.on_throttled(None);
        advance(throttle.check(monotonic()).unwrap_err()).await;
        assert_eq!(throttle.try_acquire(), Ok(()));
        drop(throttle.attempt());
        assert_eq!(throttle.try_acquire(), Ok(()));
        let attempt = throttle.attempt();
        throttle.on_throttled(seconds(7));
        drop(attempt);
        assert_eq!(throttle.try_acquire(), Err(Duration::from_secs(7)), "SCM has answered");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hanging_probe_is_followed_by_another() {
        let throttle = Throttle::default();
        throttle.on_throttled(None);
        advance(throttle.check(monotonic()).unwrap_err()).await;
        assert_eq!(throttle.try_acquire(), Ok(()));
        advance(PROBE_TIME).await;
        assert_eq!(state(&throttle), (CooldownState::ProbeDue, false));
        assert_eq!((throttle.try_acquire(), throttle.try_acquire()), (Ok(()), Err(PROBE_TIME)));
    }
}
