//! Whether a failed attempt is followed by another, and when: one small question, answered without I/O.

use std::{sync::Mutex, time::Duration};

use tokio::time::Instant;

use crate::{
    chance,
    config::Retry,
    error::{Error, Progress, Reason},
};

/// Answers that say the request was not carried out, or that nobody knows.
const REPEATED: [u16; 4] = [408, 502, 503, 504];

impl Retry {
    /// The pause before the next attempt. `None`: the answer goes back now.
    pub(super) fn pause(
        &self,
        error: &Error,
        idempotent: bool,
        budget: &Budget,
        now: Instant,
        deadline: Instant,
    ) -> Option<Duration> {
        if error.attempts >= self.attempts || !may_repeat(error, idempotent) {
            return None;
        }
        let doubled = self.backoff.saturating_mul(1 << error.attempts.saturating_sub(1).min(16));
        let pause = chance::up_to(doubled.min(self.max_backoff)).max(error.retry_after.unwrap_or_default());
        // A wait that outlasts the deadline is not begun.
        (now.checked_add(pause)? < deadline && budget.withdraw(now)).then_some(pause)
    }
}

/// Whether the call may be made again at all.
fn may_repeat(error: &Error, idempotent: bool) -> bool {
    match error.progress {
        Progress::NotSent => error.reason == Reason::UpstreamUnavailable,
        Progress::MaybeSent => idempotent && error.reason == Reason::UpstreamUnavailable,
        Progress::Answered => {
            idempotent
                && matches!(error.reason, Reason::UpstreamUnavailable | Reason::UpstreamTimeout)
                && error.answer.as_ref().is_some_and(|answer| REPEATED.contains(&answer.http_status))
        }
    }
}

/// What a call's failure is to its caller. One that may not be repeated leaves in doubt whoever made it where an
/// idempotent one could be made again.
pub(super) fn told(error: Error, idempotent: bool) -> Error {
    let in_doubt = !idempotent && may_repeat(&error, true) && !may_repeat(&error, false);
    if in_doubt { Error { reason: Reason::UpstreamOutcomeUnknown, ..error } } else { error }
}

/// The bound over all calls: repeats are at most a fifth of the calls plus ten a second.
///
/// Kept as time: a repeat costs a tenth of a second, and a call earns a fifth of that.
#[derive(Debug)]
pub(super) struct Budget(Mutex<Balance>);

#[derive(Debug)]
struct Balance {
    saved: Duration,
    as_of: Instant,
}

impl Budget {
    const REPEAT: Duration = Duration::from_millis(100);
    const CALL: Duration = Duration::from_millis(20);
    const AT_FIRST: Duration = Duration::from_secs(1);
    /// What quiet times can save up.
    const MOST: Duration = Duration::from_secs(10);

    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(Balance { saved: Self::AT_FIRST, as_of: now }))
    }

    /// A call was made.
    pub(super) fn deposit(&self) {
        let mut balance = self.0.lock().expect("nothing panics while it holds the balance");
        balance.saved = (balance.saved + Self::CALL).min(Self::MOST);
    }

    /// Whether one more repeat is within the bound; then it is taken.
    fn withdraw(&self, now: Instant) -> bool {
        let mut balance = self.0.lock().expect("nothing panics while it holds the balance");
        let passed = now.saturating_duration_since(balance.as_of).min(Self::MOST);
        balance.saved = (balance.saved + passed).min(Self::MOST);
        balance.as_of = balance.as_of.max(now);
        let left = balance.saved.checked_sub(Self::REPEAT);
        balance.saved = left.unwrap_or(balance.saved);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, advance};

    use super::{Budget, may_repeat, told};
    use crate::{
        clock::steady,
        config::Retry,
        error::{Answer, Error, Progress, Reason},
    };

    fn answered(status: u16, reason: Reason) -> Error {
        Error::answered(reason, Answer { http_status: status, ..Answer::default() })
    }

    #[test]
    fn in_doubt_is_only_who_may_not_call_again_and_does_not_know() {
        let lost = Error::new(Reason::UpstreamUnavailable, Progress::MaybeSent);
        let unsent = Error::new(Reason::UpstreamUnavailable, Progress::NotSent);
        for (error, doubtful) in [
            (lost, true),
            (answered(503, Reason::UpstreamUnavailable), true),
            (answered(504, Reason::UpstreamTimeout), true),
            (unsent, false),
            (answered(404, Reason::CertificateNotFound), false),
            (answered(429, Reason::UpstreamThrottled), false),
        ] {
            let reason = if doubtful { Reason::UpstreamOutcomeUnknown } else { error.reason };
            assert_eq!(told(error.clone(), false), Error { reason, ..error.clone() });
            assert_eq!(told(error.clone(), true), error);
        }
    }

    #[test]
    fn what_provably_was_not_sent_is_repeated_for_every_method() {
        let error = Error::new(Reason::UpstreamUnavailable, Progress::NotSent);
        assert!(may_repeat(&error, true) && may_repeat(&error, false));
        let error = Error::new(Reason::UpstreamTls, Progress::NotSent);
        assert!(!may_repeat(&error, true) && !may_repeat(&error, false));
    }

    #[test]
    fn what_may_have_been_done_is_repeated_only_where_the_proto_says_idempotent() {
        for error in [
            Error::new(Reason::UpstreamUnavailable, Progress::MaybeSent),
            answered(408, Reason::UpstreamUnavailable),
            answered(502, Reason::UpstreamUnavailable),
            answered(503, Reason::UpstreamUnavailable),
            answered(504, Reason::UpstreamTimeout),
        ] {
            assert!(may_repeat(&error, true) && !may_repeat(&error, false), "{error:?}");
        }
    }

    #[test]
    fn nothing_else_is_repeated() {
        for error in [
            answered(400, Reason::InvalidRequest),
            answered(400, Reason::UpstreamUnavailable),
            answered(401, Reason::UpstreamCredentials),
            answered(429, Reason::UpstreamThrottled),
            answered(500, Reason::UpstreamError),
            answered(502, Reason::CertificateNotFound),
            answered(200, Reason::UpstreamMalformed),
            answered(200, Reason::UpstreamTooLarge),
            Error::new(Reason::UpstreamOutcomeUnknown, Progress::MaybeSent),
            Error::new(Reason::Deadline, Progress::MaybeSent),
        ] {
            assert!(!may_repeat(&error, true), "{error:?}");
        }
    }

    const POLICY: Retry =
        Retry { attempts: 8, backoff: Duration::from_millis(50), max_backoff: Duration::from_secs(2) };

    fn pause(error: &Error, deadline: Instant) -> Option<Duration> {
        POLICY.pause(error, true, &Budget::new(steady()), steady(), deadline)
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_have_full_jitter_under_a_doubling_bound() {
        for (attempts, most) in [(1, 50), (2, 100), (3, 200), (6, 1600), (7, 2000)] {
            let error = Error { attempts, ..answered(503, Reason::UpstreamUnavailable) };
            let pauses: Vec<_> = (0..200).map(|_| pause(&error, steady() + Duration::from_secs(60)).unwrap()).collect();
            assert!(pauses.iter().all(|pause| *pause <= Duration::from_millis(most)), "{attempts}");
            assert!(pauses.iter().any(|pause| *pause > Duration::from_millis(most * 3 / 4)), "{attempts}");
            assert!(pauses.iter().any(|pause| *pause < Duration::from_millis(most / 4)), "{attempts}");
        }
        let last = Error { attempts: 8, ..answered(503, Reason::UpstreamUnavailable) };
        assert_eq!(pause(&last, steady() + Duration::from_secs(60)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn no_attempt_starts_before_scm_says_and_no_wait_outlasts_the_deadline() {
        let retry_after = Some(Duration::from_secs(3));
        let error = Error { attempts: 1, retry_after, ..answered(503, Reason::UpstreamUnavailable) };
        assert_eq!(pause(&error, steady() + Duration::from_secs(4)), Some(Duration::from_secs(3)));
        assert_eq!(pause(&error, steady() + Duration::from_secs(3)), None);
        let forever = Error { retry_after: Some(Duration::MAX), ..error };
        assert_eq!(pause(&forever, steady() + Duration::from_secs(4)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn repeats_are_a_fifth_of_the_calls_plus_ten_a_second() {
        let budget = Budget::new(steady());
        let granted = |budget: &Budget| (0..1000).filter(|_| budget.withdraw(steady())).count();
        assert_eq!(granted(&budget), 10);
        (0..100).for_each(|_| budget.deposit());
        assert_eq!(granted(&budget), 20);
        advance(Duration::from_secs(2)).await;
        assert_eq!(granted(&budget), 20);
        advance(Duration::from_secs(3600)).await;
        assert_eq!(granted(&budget), 100);
    }
}
