//! When the next poll comes, and after which errors there is one.

use std::time::Duration;

use crate::{
    error::{Error, Reason},
    jitter,
};

/// The most that failed polls multiply the interval by.
const MAX_BACKOFF: u32 = 8;

/// The longest wait that SCM can ask for.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Returns whether an error of this kind may pass, so that the next poll can succeed.
///
/// These are the reasons with UNAVAILABLE, DEADLINE_EXCEEDED or RESOURCE_EXHAUSTED, and UPSTREAM_ERROR.
pub const fn may_pass(reason: Reason) -> bool {
    use Reason as R;
    match reason {
        R::UpstreamUnavailable
        | R::UpstreamTls
        | R::CircuitOpen
        | R::ShuttingDown
        | R::UpstreamTimeout
        | R::Deadline
        | R::UpstreamThrottled
        | R::Overloaded
        | R::UpstreamError => true,
        R::InvalidRequest
        | R::CallerUnauthenticated
        | R::CallerNotAllowed
        | R::MethodDisabled
        | R::CertificateNotFound
        | R::ResourceNotFound
        | R::CertificateNotOwned
        | R::CertificateState
        | R::UpstreamConflict
        | R::UpstreamAccount
        | R::UpstreamCredentials
        | R::UpstreamConfiguration
        | R::UpstreamMalformed
        | R::UpstreamTooLarge
        | R::UpstreamOutcomeUnknown
        | R::Panic => false,
    }
}

/// The polls of one certificate in time.
pub(super) struct Schedule {
    interval: Duration,
    /// The failed polls since the last one that succeeded.
    failures: u32,
}

impl Schedule {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, failures: 0 }
    }

    /// Returns the time until the next poll after one that succeeded: the interval, give or take a tenth.
    pub(super) fn after_success(&mut self) -> Duration {
        self.failures = 0;
        jitter::spread(self.interval)
    }

    /// Returns the time until the next poll after one that failed: the interval doubles with each failure, and is at least
    /// the time that SCM or the gateway asks to wait, up to a minute.
    pub(super) fn after_failure(&mut self, error: &Error) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let factor = 2_u32.saturating_pow(self.failures).min(MAX_BACKOFF);
        let asked = error.retry_after.unwrap_or_default().min(MAX_WAIT);
        jitter::spread(self.interval * factor).max(asked)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Schedule;
    use crate::error::{Error, Progress, Reason};

    const INTERVAL: Duration = Duration::from_secs(10);

    fn is_about(wait: Duration, expected: Duration) -> bool {
        (expected.mul_f64(0.9)..=expected.mul_f64(1.1)).contains(&wait)
    }

    #[test]
    fn the_interval_is_spread_by_a_tenth() {
        let mut schedule = Schedule::new(INTERVAL);
        let waits: Vec<_> = (0..1000).map(|_| schedule.after_success()).collect();
        assert!(waits.iter().all(|wait| is_about(*wait, INTERVAL)), "{waits:?}");
        let (min, max) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(*min < INTERVAL.mul_f64(0.92) && *max > INTERVAL.mul_f64(1.08), "{min:?} to {max:?}");
    }

    #[test]
    fn failures_double_the_interval_up_to_a_limit() {
        let error = Error::new(Reason::UpstreamUnavailable, Progress::NotSent);
        let mut schedule = Schedule::new(INTERVAL);
        for factor in [2, 4, 8, 8, 8] {
            let wait = schedule.after_failure(&error);
            assert!(is_about(wait, INTERVAL * factor), "{wait:?} after {factor}");
        }
        assert!(is_about(schedule.after_success(), INTERVAL));
        assert!(is_about(schedule.after_failure(&error), INTERVAL * 2), "a success ends the backoff");
    }

    #[test]
    fn the_next_poll_respects_retry_after_up_to_a_minute() {
        for (asked, expected) in [(50, 50), (60, 60), (3600, 60)] {
            let error = Error::retry_later(Reason::UpstreamThrottled, Duration::from_secs(asked));
            assert_eq!(Schedule::new(INTERVAL).after_failure(&error), Duration::from_secs(expected));
        }
    }
}
