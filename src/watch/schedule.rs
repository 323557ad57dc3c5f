//! When the next poll comes, and after which errors there is one.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    clock,
    error::{Error, Reason},
    jitter,
};

/// Half of the wait after the first failed poll of a certificate of which nothing is known, unless the interval is shorter.
const MIN_BACKOFF: Duration = Duration::from_secs(1);

/// The most that failed polls multiply the interval by.
const MAX_FACTOR: u32 = 8;

/// The longest wait that failed polls lead to, if the interval is not longer.
const MAX_BACKOFF: Duration = Duration::from_secs(300);

/// The longest wait that SCM or the gateway can ask for.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The time over which polls spread that were asked to wait until the same moment, unless the interval is shorter.
const MIN_SPREAD: Duration = Duration::from_secs(5);

/// The longest time between two ticks. It does not divide seconds, so that metrics are not read at the same moment between two
/// ticks each time.
const MAX_TICK: Duration = Duration::from_millis(467);

/// The ticks in an interval, if they are shorter than that.
const TICKS: u32 = 64;

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
    /// The last wait after a poll that failed.
    backoff: Duration,
    /// The time over which the next poll spreads if it is asked to wait.
    spread: Duration,
}

impl Schedule {
    /// Creates the schedule of a certificate of which nothing is known, so that the first failures lead to short waits.
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, backoff: interval.min(MIN_BACKOFF), spread: interval.min(MIN_SPREAD) }
    }

    /// Returns the shortest time until the next poll after one that succeeded. At the next tick, the interval has passed, give
    /// or take a tenth.
    pub(super) fn after_success(&mut self) -> Duration {
        self.backoff = self.interval;
        self.spread = self.interval.min(MIN_SPREAD);
        self.interval.mul_f64(0.9) + jitter::full(self.interval / 5 - tick(self.interval))
    }

    /// Returns the time until the next poll after one that failed: twice the last wait up to a limit, and at least the time
    /// that SCM or the gateway asks to wait.
    ///
    /// A poll that was rejected by a limit of the gateway or an open circuit was not made. The next one comes soon. After
    /// more rejections in a row the polls spread over twice the interval, so that they ask no more often than in good
    /// times, or every few minutes if the interval is longer. A cooldown is a failure, because polls must leave SCM's quota to calls.
    pub(super) fn after_failure(&mut self, error: &Error) -> Duration {
        let asked = error.retry_after.map(|asked| asked.min(MAX_WAIT) + jitter::full(self.spread));
        let is_rejected = error.attempts == 0 && matches!(error.reason, Reason::Overloaded | Reason::CircuitOpen);
        match asked {
            Some(asked) if is_rejected => {
                self.spread = (self.spread * 2).min(self.interval * 2).min(MAX_BACKOFF);
                asked
            }
            _ => {
                let max = (self.interval * MAX_FACTOR).min(MAX_BACKOFF).max(self.interval);
                self.backoff = (self.backoff * 2).min(max);
                self.spread = self.interval.min(MIN_SPREAD);
                jitter::spread(self.backoff).max(asked.unwrap_or_default())
            }
        }
    }
}

/// Returns the time between two ticks.
fn tick(interval: Duration) -> Duration {
    (interval / TICKS).min(MAX_TICK)
}

/// The moments at which the waits after polls that succeeded end, so that those of many certificates wake an idle process
/// together.
pub(super) struct Ticks {
    started: Instant,
    tick: Duration,
}

impl Ticks {
    /// Starts the ticks of polls with this interval.
    pub(super) fn start(interval: Duration) -> Self {
        Self { started: clock::monotonic(), tick: tick(interval) }
    }

    /// Returns the first tick after this wait.
    pub(super) fn after(&self, wait: Duration) -> Instant {
        let ticks = (clock::monotonic() - self.started + wait).div_duration_f64(self.tick).ceil();
        self.started + self.tick.mul_f64(ticks)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::{Schedule, Ticks};
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

    fn waits<const N: usize>(schedule: &mut Schedule, error: &Error) -> [Duration; N] {
        std::array::from_fn(|_| schedule.after_failure(error))
    }

    #[track_caller]
    fn assert_about<const N: usize>(waits: [Duration; N], seconds: [u64; N]) {
        let are_about =
            waits.iter().zip(seconds).all(|(wait, expected)| is_about(*wait, Duration::from_secs(expected)));
        assert!(are_about, "{waits:?}, expected about {seconds:?} s");
    }

    #[test]
    fn failures_double_the_wait_up_to_a_limit() {
        let error = Error::new(Reason::UpstreamUnavailable, Progress::NotSent);
        for (interval, expected) in [(10, [20, 40, 80, 80]), (100, [200, 300, 300, 300]), (3600, [3600; 4])] {
            let mut schedule = Schedule::new(Duration::from_secs(interval));
            for _ in 0..2 {
                assert_about([schedule.after_success()], [interval]);
                assert_about(waits(&mut schedule, &error), expected);
            }
        }
    }

    #[test]
    fn the_first_waits_of_a_certificate_without_a_state_are_short() {
        let error = Error::new(Reason::UpstreamUnavailable, Progress::NotSent);
        assert_about(waits(&mut Schedule::new(INTERVAL), &error), [2, 4, 8, 16, 32, 64, 80]);
        let waits: [_; 2] = waits(&mut Schedule::new(Duration::from_millis(100)), &error);
        assert!(is_about(waits[0], Duration::from_millis(200)), "{waits:?}");
    }

    #[test]
    fn polls_that_scm_asks_to_wait_spread_after_that_time() {
        for (asked, expected) in [(50, 50), (60, 60), (3600, 60)] {
            let error = Error::retry_later(Reason::UpstreamThrottled, Duration::from_secs(asked));
            let wait = Schedule::new(INTERVAL).after_failure(&error);
            assert!((expected..expected + 5).contains(&wait.as_secs()), "{wait:?}");
        }
    }

    #[test]
    fn a_cooldown_is_a_failure() {
        let error = Error::retry_later(Reason::UpstreamThrottled, Duration::from_secs(1));
        let mut schedule = Schedule::new(INTERVAL);
        schedule.after_success();
        assert_about(waits(&mut schedule, &error), [20, 40, 80, 80]);
    }

    /// Returns the longest and the average wait after so many rejections in a row, without the time that was asked for.
    fn rejected(interval: Duration, times: usize) -> (Duration, Duration) {
        const SAMPLES: u32 = 1000;
        let error = Error::retry_later(Reason::CircuitOpen, Duration::from_secs(4));
        let wait = || {
            let mut schedule = Schedule::new(interval);
            schedule.after_success();
            let waits: Vec<_> = (0..times).map(|_| schedule.after_failure(&error)).collect();
            *waits.last().unwrap() - Duration::from_secs(4)
        };
        let waits: Vec<_> = (0..SAMPLES).map(|_| wait()).collect();
        (*waits.iter().max().unwrap(), waits.iter().sum::<Duration>() / SAMPLES)
    }

    #[test]
    fn rejected_polls_come_soon_and_then_as_often_as_others() {
        for (interval, times, spread) in
            [(30, 1, 5), (30, 2, 10), (30, 3, 20), (30, 4, 40), (30, 5, 60), (30, 20, 60), (3600, 20, 300), (1, 20, 2)]
        {
            let (longest, average) = rejected(Duration::from_secs(interval), times);
            let expected = Duration::from_secs(spread);
            assert!(
                longest <= expected && longest > expected.mul_f64(0.9),
                "{longest:?} of {interval} s, {times} times"
            );
            assert!(is_about(average, expected / 2), "{average:?} of {interval} s, {times} times");
        }
    }

    #[test]
    fn a_poll_that_was_made_ends_the_rejections_in_a_row() {
        let failed = Error::new(Reason::UpstreamUnavailable, Progress::NotSent);
        let rejected = Error::retry_later(Reason::CircuitOpen, Duration::ZERO);
        let mut schedule = Schedule::new(INTERVAL);
        for result in [Ok(()), Err(&failed)] {
            let _: [_; 10] = waits(&mut schedule, &rejected);
            match result {
                Ok(()) => schedule.after_success(),
                Err(error) => schedule.after_failure(error),
            };
            assert!(schedule.after_failure(&rejected) <= Duration::from_secs(5));
        }
        schedule.after_success();
        let _: [_; 10] = waits(&mut schedule, &rejected);
        assert!(is_about(schedule.after_failure(&failed), INTERVAL * 2), "rejections do not count as failures");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_at_the_next_tick() {
        for (interval, tick) in [(6_400, 100), (25_600, 400), (30_000, 467), (3_600_000, 467)] {
            let started = crate::clock::monotonic();
            let ticks = Ticks::start(Duration::from_millis(interval));
            for (wait, expected) in [(1, 1), (tick - 1, 1), (tick + 1, 2)] {
                let waited = ticks.after(Duration::from_millis(wait)) - started;
                assert_eq!(waited.as_millis(), u128::from(tick * expected), "after {wait} ms");
            }
            advance(Duration::from_millis(tick / 2)).await;
            let waited = ticks.after(Duration::from_millis(10 * tick)) - started;
            assert_eq!(waited.as_millis(), u128::from(11 * tick), "from between two ticks");
        }
    }
}
