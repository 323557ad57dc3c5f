//! The circuit breaker in front of SCM: opens after failed calls in a row, then lets one probe at a time through.

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    clock, config,
    error::{Error, Progress, Reason},
    jitter,
};

/// What a call says about SCM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// SCM responded.
    Success,
    /// SCM is unreachable or unavailable.
    Failure,
    /// The call says nothing about SCM.
    Ignored,
}

impl Outcome {
    /// Returns what the result of a call says about SCM.
    pub(super) fn of<R>(result: &Result<R, Error>) -> Self {
        result.as_ref().map_or_else(Self::from, |_| Self::Success)
    }

    /// Falls back to the outcome of the previous attempt if the last one says nothing, as when the deadline expired during
    /// it.
    pub(super) fn or_else(self, previous: impl FnOnce() -> Option<Self>) -> Self {
        match self {
            Self::Ignored => previous().unwrap_or(self),
            outcome => outcome,
        }
    }
}

impl From<&Error> for Outcome {
    fn from(error: &Error) -> Self {
        match error.reason {
            Reason::UpstreamUnavailable | Reason::UpstreamTimeout => Self::Failure,
            _ if error.progress == Progress::Answered => Self::Success,
            _ => Self::Ignored,
        }
    }
}

#[derive(Debug)]
pub(super) struct Breaker {
    project_id: String,
    policy: config::Breaker,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, backoff: Duration },
    HalfOpen { backoff: Duration, since: Instant },
}

/// A permit for one call. Dropped without an outcome, it records [`Outcome::Ignored`].
#[derive(Debug)]
pub(super) struct BreakerPermit<'a> {
    breaker: &'a Breaker,
    probe: bool,
    outcome: Outcome,
}

impl Breaker {
    /// Creates a closed breaker.
    pub(super) fn new(project_id: String, policy: config::Breaker) -> Self {
        Self { project_id, policy, state: Mutex::new(State::Closed { failures: 0 }) }
    }

    /// Returns a permit for a call, or how long calls are rejected.
    pub(super) fn try_acquire(&self) -> Result<BreakerPermit<'_>, Duration> {
        let now = clock::monotonic();
        let mut state = self.lock();
        let probe = match *state {
            State::Closed { .. } => false,
            State::Open { until, .. } if now < until => return Err(until - now),
            // A probe that hangs must not keep other calls from probing.
            State::HalfOpen { backoff, since } if now < since + backoff => return Err(since + backoff - now),
            State::Open { backoff, .. } | State::HalfOpen { backoff, .. } => {
                *state = State::HalfOpen { backoff, since: now };
                true
            }
        };
        Ok(BreakerPermit { breaker: self, probe, outcome: Outcome::Ignored })
    }

    /// Returns whether calls are rejected.
    pub(super) fn is_open(&self) -> bool {
        match *self.lock() {
            State::Closed { .. } => false,
            State::Open { until, .. } => clock::monotonic() < until,
            State::HalfOpen { .. } => true,
        }
    }

    fn record(&self, probe: bool, outcome: Outcome) {
        let mut state = self.lock();
        *state = match (*state, probe, outcome) {
            (State::HalfOpen { .. }, true, Outcome::Success) => {
                tracing::info!(project_id = self.project_id, "circuit closed");
                State::Closed { failures: 0 }
            }
            (State::HalfOpen { backoff, .. }, true, Outcome::Failure) => {
                open((backoff * 2).min(self.policy.max_backoff))
            }
            (State::HalfOpen { backoff, .. }, true, Outcome::Ignored) => {
                State::Open { until: clock::monotonic(), backoff } // the next call is the probe
            }
            (State::Closed { .. }, false, Outcome::Success) => State::Closed { failures: 0 },
            (State::Closed { failures }, false, Outcome::Failure) if failures + 1 >= self.policy.max_failures => {
                tracing::warn!(project_id = self.project_id, "circuit opened");
                open(self.policy.backoff)
            }
            (State::Closed { failures }, false, Outcome::Failure) => State::Closed { failures: failures + 1 },
            // Calls in flight when the breaker opened change nothing.
            (unchanged, ..) => unchanged,
        };
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the lock is held")
    }
}

fn open(backoff: Duration) -> State {
    State::Open { until: clock::monotonic() + jitter::spread(backoff), backoff }
}

impl BreakerPermit<'_> {
    /// Records the outcome of the call and releases the permit.
    pub(super) fn record(mut self, outcome: Outcome) {
        self.outcome = outcome; // recorded on drop
    }
}

impl Drop for BreakerPermit<'_> {
    fn drop(&mut self) {
        self.breaker.record(self.probe, self.outcome);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::{Breaker, Outcome};
    use crate::config;

    fn breaker() -> Breaker {
        Breaker::new(
            "p".to_owned(),
            config::Breaker { max_failures: 3, backoff: Duration::from_secs(1), max_backoff: Duration::from_secs(4) },
        )
    }

    fn calls(breaker: &Breaker, outcomes: &[Outcome]) {
        outcomes.iter().for_each(|outcome| breaker.try_acquire().unwrap().record(*outcome));
    }

    /// Waits for the time that a rejected call gets, which is exact except for jitter.
    async fn wait(breaker: &Breaker, about: u64) {
        let wait = breaker.try_acquire().unwrap_err();
        let about = Duration::from_secs(about);
        assert!(wait >= about.mul_f64(0.9) && wait <= about.mul_f64(1.1), "{wait:?}");
        advance(wait - Duration::from_millis(1)).await;
        assert!(breaker.try_acquire().is_err(), "not a moment earlier");
        advance(Duration::from_millis(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn opens_after_failures_in_a_row() {
        use Outcome::{Failure, Ignored, Success};
        let breaker = breaker();
        calls(&breaker, &[Failure, Failure, Success, Failure, Failure, Ignored]);
        assert!(!breaker.is_open());
        calls(&breaker, &[Failure]);
        assert!(breaker.is_open() && breaker.try_acquire().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn one_probe_at_a_time_and_the_backoff_doubles() {
        let breaker = breaker();
        calls(&breaker, &[Outcome::Failure; 3]);
        for about in [1, 2, 4, 4] {
            wait(&breaker, about).await;
            let probe = breaker.try_acquire().unwrap();
            assert!(breaker.try_acquire().is_err(), "one probe at a time");
            probe.record(Outcome::Failure);
        }
        wait(&breaker, 4).await;
        breaker.try_acquire().unwrap().record(Outcome::Success);
        assert!(!breaker.is_open());
        calls(&breaker, &[Outcome::Failure; 2]);
        assert!(!breaker.is_open(), "it counts from zero again");
    }

    #[tokio::test(start_paused = true)]
    async fn an_ignored_probe_lets_the_next_call_probe() {
        let breaker = breaker();
        calls(&breaker, &[Outcome::Failure; 3]);
        wait(&breaker, 1).await;
        drop(breaker.try_acquire().unwrap());
        breaker.try_acquire().unwrap().record(Outcome::Success);
        assert!(!breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_hanging_probe_does_not_block_others() {
        let breaker = breaker();
        calls(&breaker, &[Outcome::Failure; 3]);
        wait(&breaker, 1).await;
        let hanging = breaker.try_acquire().unwrap();
        advance(Duration::from_millis(400)).await;
        assert_eq!(breaker.try_acquire().unwrap_err(), Duration::from_millis(600), "the reported wait is exact");
        advance(Duration::from_millis(600)).await;
        breaker.try_acquire().unwrap().record(Outcome::Success);
        assert!(!breaker.is_open());
        drop(hanging);
        assert!(!breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_in_flight_when_it_opens_change_nothing() {
        let breaker = breaker();
        let late = [breaker.try_acquire().unwrap(), breaker.try_acquire().unwrap()];
        calls(&breaker, &[Outcome::Failure; 3]);
        late.into_iter().for_each(|permit| permit.record(Outcome::Success));
        assert!(breaker.is_open());
    }
}
