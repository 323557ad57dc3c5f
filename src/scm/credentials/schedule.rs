//! Decides when temporary credentials are exchanged again. It has no clock and no state except that of the last exchanges.

use std::time::Duration;

/// Credentials are never refreshed earlier than this before their expiry, apart from the jitter.
const MAX_MARGIN: Duration = Duration::from_secs(40 * 60);

/// How long a rejection stands, unless the token changes.
const AFTER_REJECTION: Duration = Duration::from_secs(5 * 60);

/// The first and the longest backoff after a failure.
const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// The shortest time between two exchanges.
pub(super) const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// The shortest time between two exchanges because SCM has rejected credentials before their expiry. If SCM rejects the new
/// ones too, further exchanges do not help.
pub(super) const MIN_REJECTION_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// The result of an exchange, as far as the next one depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exchanged {
    /// New credentials, or a later expiry of the current ones, with the time that is left.
    Issued(Duration),
    /// The current credentials again, with the time that is left.
    Unchanged(Duration),
    /// The service rejected the request.
    Rejected,
    /// Any other failure.
    Failed {
        /// The `Retry-After` of the response.
        retry_after: Option<Duration>,
    },
}

impl Exchanged {
    /// Returns whether the service has set a wait, which a rejection by SCM does not shorten.
    pub(super) fn imposes_wait(self) -> bool {
        matches!(self, Self::Rejected | Self::Failed { retry_after: Some(_) })
    }
}

/// The schedule of one source.
#[derive(Debug)]
pub(super) struct Schedule {
    jitter: fn(Duration) -> Duration,
    /// The current credentials are refreshed once less than this is left.
    margin: Duration,
    /// The failures since the last success or rejection.
    failures: u32,
}

impl Schedule {
    /// Creates the schedule of a source before its first exchange. `jitter` changes a duration by at most 10 %.
    pub(super) fn new(jitter: fn(Duration) -> Duration) -> Self {
        Self { jitter, margin: Duration::ZERO, failures: 0 }
    }

    /// Returns how long after the end of this exchange the next one is due.
    pub(super) fn next(&mut self, exchanged: Exchanged) -> Duration {
        let failures = std::mem::take(&mut self.failures);
        match exchanged {
            Exchanged::Issued(left) => {
                self.margin = (self.jitter)(MAX_MARGIN.min(left / 3));
                left - self.margin
            }
            Exchanged::Unchanged(left) if left > self.margin => left - self.margin,
            Exchanged::Unchanged(left) => left / 3,
            Exchanged::Rejected => AFTER_REJECTION,
            Exchanged::Failed { retry_after } => {
                self.failures = failures.saturating_add(1);
                let doubled = INITIAL_BACKOFF.saturating_mul(1 << failures.min(16)).min(MAX_BACKOFF);
                (self.jitter)(doubled).max(retry_after.unwrap_or_default()).min(MAX_BACKOFF)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jitter;

    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn exact() -> Schedule {
        Schedule::new(|duration| duration)
    }

    fn failed(retry_after: Option<u64>) -> Exchanged {
        Exchanged::Failed { retry_after: retry_after.map(secs) }
    }

    #[test]
    fn the_margin_is_a_third_of_the_life_and_at_most_forty_minutes() {
        for (life, next) in [
            (24 * HOUR, 24 * HOUR - 40 * MINUTE),
            (12 * HOUR, 12 * HOUR - 40 * MINUTE),
            (2 * HOUR, 2 * HOUR - 40 * MINUTE),
            (HOUR, 40 * MINUTE),
            (15 * MINUTE, 10 * MINUTE),
            (MINUTE, 40),
            (3, 2),
            (0, 0),
        ] {
            assert_eq!(exact().next(Exchanged::Issued(secs(life))), secs(next), "{life}");
        }
    }

    #[test]
    fn the_jitter_is_at_most_a_tenth_of_the_margin() {
        for (life, margin) in [(24 * HOUR, 40 * MINUTE), (HOUR, 20 * MINUTE), (15 * MINUTE, 5 * MINUTE)] {
            let mut seen = std::collections::BTreeSet::new();
            for _ in 0..1000 {
                let left = secs(life) - Schedule::new(jitter::spread).next(Exchanged::Issued(secs(life)));
                assert!(left.abs_diff(secs(margin)) <= secs(margin) / 10, "{left:?} of {life}");
                seen.insert(left);
            }
            assert!(seen.len() > 100);
        }
    }

    #[test]
    fn unchanged_credentials_are_asked_for_after_a_third_of_what_is_left() {
        let mut schedule = exact();
        schedule.next(Exchanged::Issued(secs(24 * HOUR)));
        for (left, next) in [
            (23 * HOUR, 23 * HOUR - 40 * MINUTE),
            (40 * MINUTE + 1, 1),
            (40 * MINUTE, 800),
            (30 * MINUTE, 10 * MINUTE),
            (3, 1),
            (0, 0),
        ] {
            assert_eq!(schedule.next(Exchanged::Unchanged(secs(left))), secs(next), "{left}");
        }
    }

    #[test]
    fn a_rejection_stands_for_five_minutes() {
        let mut schedule = exact();
        for _ in 0..3 {
            assert_eq!(schedule.next(Exchanged::Rejected), secs(5 * MINUTE));
        }
    }

    #[test]
    fn the_backoff_doubles_from_one_second_to_a_minute() {
        let mut schedule = exact();
        for expected in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            assert_eq!(schedule.next(failed(None)), secs(expected));
        }
        for _ in 0..100 {
            schedule.next(failed(None));
        }
        assert_eq!(schedule.next(failed(None)), secs(60), "no overflow");
    }

    #[test]
    fn success_and_rejection_reset_the_backoff() {
        for reset in [Exchanged::Issued(secs(HOUR)), Exchanged::Unchanged(secs(HOUR)), Exchanged::Rejected] {
            let mut schedule = exact();
            for _ in 0..5 {
                schedule.next(failed(None));
            }
            schedule.next(reset);
            assert_eq!(schedule.next(failed(None)), secs(1), "{reset:?}");
        }
    }

    #[test]
    fn retry_after_extends_the_backoff_to_at_most_a_minute() {
        for (failures, retry_after, expected) in
            [(0, 7, 7), (0, 60, 60), (0, 61, 60), (0, 86_400, 60), (3, 1, 8), (9, 5, 60)]
        {
            let mut schedule = exact();
            for _ in 0..failures {
                schedule.next(failed(None));
            }
            assert_eq!(schedule.next(failed(Some(retry_after))), secs(expected), "{failures} {retry_after}");
        }
    }

    #[test]
    fn the_jitter_of_a_backoff_never_exceeds_a_minute() {
        let mut schedule = Schedule::new(|duration| duration.mul_f64(1.1));
        let waits: Vec<_> = (0..8).map(|_| schedule.next(failed(None)).as_millis()).collect();
        assert_eq!(waits, [1100, 2200, 4400, 8800, 17_600, 35_200, 60_000, 60_000]);
    }
}
