//! Decides whether a failed attempt is retried, and after what backoff.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tower::retry::budget::{Budget as _, TpsBudget};

use super::clock_skew::is_correctable;
use crate::{
    clock,
    config::Retry,
    error::{Error, Progress, Reason},
    jitter,
    scm::{
        api::{decode::AMBIGUOUS_STATUSES, error_codes::is_unprocessed},
        credentials::AuthOutcome,
    },
};

/// The window of the retry budget.
const BUDGET_WINDOW: Duration = Duration::from_secs(1);

/// The reasons of failed attempts that another attempt may follow. The one after UPSTREAM_CREDENTIALS is signed with a
/// corrected date, or with the accepted credentials.
pub(super) const RETRIED: [Reason; 3] =
    [Reason::UpstreamUnavailable, Reason::UpstreamTimeout, Reason::UpstreamCredentials];

/// The retries of all calls together: at most a fifth of the calls of the last second, plus ten.
#[derive(Debug)]
pub(super) struct Budget {
    window: Mutex<Window>,
    exhausted: AtomicU64,
}

#[derive(Debug)]
struct Window {
    budget: TpsBudget,
    used: Instant,
}

impl Budget {
    /// Creates the budget that all calls share.
    pub(super) fn new() -> Self {
        Self { window: Mutex::new(Window::new(clock::monotonic())), exhausted: AtomicU64::new(0) }
    }

    /// Counts a call, which raises the number of allowed retries.
    pub(super) fn deposit(&self, now: Instant) {
        self.with(now, TpsBudget::deposit);
    }

    /// Takes one retry. Returns whether there was one.
    fn withdraw(&self) -> bool {
        self.with(clock::monotonic(), TpsBudget::withdraw)
    }

    /// Returns how many retries were not made because the budget was exhausted.
    pub(super) fn exhausted(&self) -> u64 {
        self.exhausted.load(Ordering::Relaxed)
    }

    /// tower's budget walks through all the time since its last use, so an expired one is replaced instead: after a quiet
    /// week, the walk would block the worker for milliseconds.
    fn with<T>(&self, now: Instant, work: impl FnOnce(&TpsBudget) -> T) -> T {
        let mut window = self.window.lock().expect("no panic while the lock is held");
        if now.saturating_duration_since(window.used) > BUDGET_WINDOW {
            *window = Window::new(now);
        }
        window.used = now;
        work(&window.budget)
    }
}

impl Window {
    fn new(now: Instant) -> Self {
        Self { budget: TpsBudget::new(BUDGET_WINDOW, 10, 0.2), used: now }
    }
}

/// What to do after a failed attempt.
#[derive(Debug, PartialEq)]
pub(super) enum Decision {
    /// Make another attempt after this backoff.
    Retry(Duration),
    /// Make another attempt at once, with a date that is corrected by the clock skew.
    Resign,
    /// Make another attempt at once, signed with the credentials that SCM has accepted. Without any, return this error.
    SignWithAccepted(Error),
    /// Return this error to the caller.
    GiveUp(Error),
}

/// What an attempt was signed with, as far as its failure depends on it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Signature {
    /// Seconds added to the local clock.
    pub(super) clock_offset: i64,
    /// Whether SCM had not accepted the credentials yet.
    pub(super) is_trial: bool,
}

/// The attempts of one call so far.
pub(super) struct RetryState<'a> {
    policy: &'a Retry,
    budget: &'a Budget,
    idempotent: bool,
    deadline: Instant,
    attempts: u32,
    resigned: bool,
    /// Whether new credentials were rejected, and an attempt with accepted ones has followed.
    signed_with_accepted: bool,
    /// How many attempts have ended by their timeout.
    timeouts: u32,
    /// Whether the next retry has already been taken from the budget.
    reserved: bool,
    /// Whether the budget has refused the next retry, and it has not been made since.
    refused: bool,
    /// The failure of the last attempt that was followed by another one.
    previous: Option<Error>,
    /// Whether a failed attempt may have been carried out.
    maybe_carried_out: bool,
}

impl<'a> RetryState<'a> {
    /// Creates the state of a call before its first attempt.
    pub(super) fn new(policy: &'a Retry, budget: &'a Budget, idempotent: bool, deadline: Instant) -> Self {
        Self {
            policy,
            budget,
            idempotent,
            deadline,
            attempts: 0,
            resigned: false,
            signed_with_accepted: false,
            timeouts: 0,
            reserved: false,
            refused: false,
            previous: None,
            maybe_carried_out: false,
        }
    }

    /// Counts an attempt and returns its number; the first is 1.
    pub(super) fn start_attempt(&mut self) -> u32 {
        self.refused = false;
        self.attempts += 1;
        self.attempts
    }

    /// Returns when an attempt that starts now times out in favor of a retry. The last attempt has all the time that is
    /// left, and so has a later one whose retry would have less time than an attempt may take.
    pub(super) fn attempt_timeout(&self, now: Instant) -> Option<Instant> {
        if !self.idempotent || self.counted(self.attempts) >= self.policy.attempts {
            return None;
        }
        let timeout = now.checked_add(self.policy.attempt_timeout)?;
        let left = self.deadline.checked_duration_since(timeout).filter(|left| !left.is_zero())?;
        (self.timeouts == 0 || left >= self.policy.attempt_timeout).then_some(timeout)
    }

    /// Takes the retry of an attempt that has timed out from the budget. Returns whether there was one.
    pub(super) fn reserve(&mut self) -> bool {
        self.reserved = self.withdraw();
        self.timeouts += u32::from(self.reserved);
        self.reserved
    }

    /// Decides what follows a failed attempt.
    pub(super) fn fail(&mut self, error: Error, signature: Signature) -> Decision {
        let error = self.give_up(error);
        // The only retries after a 401, which is never carried out: the clock was wrong, and now the offset is known, or
        // the credentials were on trial.
        let measured = error.clock_skew();
        if !self.resigned && measured.is_some_and(|measured| is_correctable(measured, signature.clock_offset)) {
            self.resigned = true;
            return Decision::Resign;
        }
        let is_rejection = AuthOutcome::of_failure(&error) == AuthOutcome::Rejected;
        if !self.signed_with_accepted && signature.is_trial && is_rejection {
            self.signed_with_accepted = true;
            return Decision::SignWithAccepted(error);
        }
        let code = error.answer.as_ref().and_then(|answer| answer.code.as_deref());
        self.maybe_carried_out |= error.progress != Progress::NotSent && !is_unprocessed(code);
        let reserved = std::mem::take(&mut self.reserved);
        match self.backoff(&error, clock::monotonic(), reserved) {
            Some(backoff) => {
                self.previous = Some(error);
                Decision::Retry(backoff)
            }
            None => Decision::GiveUp(error),
        }
    }

    /// Returns the error of the call when no further attempt is made: with the number of attempts, and `MaybeSent` if an
    /// earlier attempt was sent.
    pub(super) fn give_up(&self, error: Error) -> Error {
        Error { attempts: self.attempts, ..error }.after(&self.previous)
    }

    /// Returns whether an earlier attempt may have been carried out.
    pub(super) fn may_have_been_carried_out(&self) -> bool {
        self.maybe_carried_out
    }

    /// Returns the failure of the previous attempt, or `error` if there was none.
    pub(super) fn previous_or(&self, error: Error) -> Error {
        self.previous.clone().unwrap_or_else(|| self.give_up(error))
    }

    /// Returns the backoff before the next attempt, or `None` if there is none: exponential with full jitter, at least
    /// `Retry-After`, and only if it ends before the deadline.
    fn backoff(&mut self, error: &Error, now: Instant, reserved: bool) -> Option<Duration> {
        let attempts = self.counted(error.attempts);
        if attempts >= self.policy.attempts || !is_retryable(error, self.idempotent) {
            return None;
        }
        let doubled = self.policy.initial_backoff.saturating_mul(1 << attempts.saturating_sub(1).min(16));
        let jittered = jitter::full(doubled.min(self.policy.max_backoff));
        let backoff = jittered.max(error.retry_after.unwrap_or_default());
        (now.checked_add(backoff)? < self.deadline && (reserved || self.withdraw())).then_some(backoff)
    }

    /// Returns how many of these attempts `[upstream] attempts` limits: not the one that new credentials have cost, because
    /// refreshes would otherwise use up the retries of calls.
    fn counted(&self, attempts: u32) -> u32 {
        attempts.saturating_sub(u32::from(self.signed_with_accepted))
    }

    /// Takes a retry from the budget. Returns whether there was one.
    fn withdraw(&mut self) -> bool {
        let is_allowed = self.budget.withdraw();
        self.refused = !is_allowed;
        is_allowed
    }
}

impl Drop for RetryState<'_> {
    /// Counts the retry that the budget prevented. Until the end of the call, it may still be made.
    fn drop(&mut self) {
        if self.refused {
            self.budget.exhausted.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Returns whether a call with this failure may be retried at all.
fn is_retryable(error: &Error, idempotent: bool) -> bool {
    match error.progress {
        Progress::NotSent => error.reason == Reason::UpstreamUnavailable,
        // UPSTREAM_TIMEOUT is the timeout of the attempt.
        Progress::MaybeSent => {
            idempotent && matches!(error.reason, Reason::UpstreamUnavailable | Reason::UpstreamTimeout)
        }
        Progress::Answered => {
            idempotent
                && matches!(error.reason, Reason::UpstreamUnavailable | Reason::UpstreamTimeout)
                && error.answer.as_ref().is_some_and(|answer| AMBIGUOUS_STATUSES.contains(&answer.http_status))
        }
    }
}

/// Converts the last attempt's error into the error of the call: for a call that is not idempotent, a failure without a
/// response becomes UPSTREAM_OUTCOME_UNKNOWN. What a response means, its decoder has decided.
pub(super) fn finalize(error: Error, idempotent: bool) -> Error {
    let is_ambiguous = !idempotent && error.progress == Progress::MaybeSent && is_retryable(&error, true);
    if is_ambiguous { Error { reason: Reason::UpstreamOutcomeUnknown, ..error } } else { error }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, advance};

    use super::{Budget, Decision, RETRIED, RetryState, Signature, finalize, is_retryable};
    use crate::{
        clock::monotonic,
        config::Retry,
        error::{Answer, Error, Progress, Reason},
    };

    fn answered(status: u16, reason: Reason) -> Error {
        Error::answered(reason, Answer { http_status: status, ..Answer::default() })
    }

    #[test]
    fn only_ambiguous_failures_become_outcome_unknown() {
        let lost = Error::new(Reason::UpstreamUnavailable, Progress::MaybeSent);
        let unsent = Error::new(Reason::UpstreamUnavailable, Progress::NotSent);
        for (error, ambiguous) in [
            (lost, true),
            (answered(503, Reason::UpstreamUnavailable), false),
            (unsent, false),
            (answered(404, Reason::CertificateNotFound), false),
            (answered(429, Reason::UpstreamThrottled), false),
        ] {
            let reason = if ambiguous { Reason::UpstreamOutcomeUnknown } else { error.reason };
            assert_eq!(finalize(error.clone(), false), Error { reason, ..error.clone() });
            assert_eq!(finalize(error.clone(), true), error);
        }
    }

    #[test]
    fn unsent_requests_are_retryable_for_every_method() {
        let error = Error::new(Reason::UpstreamUnavailable, Progress::NotSent);
        assert!(is_retryable(&error, true) && is_retryable(&error, false));
        let error = Error::new(Reason::UpstreamTls, Progress::NotSent);
        assert!(!is_retryable(&error, true) && !is_retryable(&error, false));
    }

    #[test]
    fn ambiguous_failures_are_retryable_if_idempotent() {
        for error in [
            Error::new(Reason::UpstreamUnavailable, Progress::MaybeSent),
            Error::new(Reason::UpstreamTimeout, Progress::MaybeSent),
            answered(408, Reason::UpstreamUnavailable),
            answered(502, Reason::UpstreamUnavailable),
            answered(503, Reason::UpstreamUnavailable),
            answered(504, Reason::UpstreamTimeout),
        ] {
            assert!(is_retryable(&error, true) && !is_retryable(&error, false), "{error:?}");
            assert!(RETRIED.contains(&error.reason), "{error:?}");
        }
    }

    #[test]
    fn other_failures_are_not_retryable() {
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
            assert!(!is_retryable(&error, true), "{error:?}");
        }
    }

    const POLICY: Retry = Retry {
        attempts: 8,
        attempt_timeout: Duration::from_secs(4),
        initial_backoff: Duration::from_millis(50),
        max_backoff: Duration::from_secs(2),
    };

    /// Returns the backoff after `attempts` attempts, the last of which failed with `error`.
    fn backoff(attempts: u32, error: &Error, deadline: Instant) -> Option<Duration> {
        let budget = Budget::new();
        let mut retry = RetryState::new(&POLICY, &budget, true, deadline);
        retry.attempts = attempts;
        match retry.fail(error.clone(), Signature::default()) {
            Decision::Retry(backoff) => Some(backoff),
            _ => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn backoff_is_exponential_with_full_jitter() {
        let error = answered(503, Reason::UpstreamUnavailable);
        for (attempts, max) in [(1, 50), (2, 100), (3, 200), (6, 1600), (7, 2000)] {
            let backoffs: Vec<_> =
                (0..200).map(|_| backoff(attempts, &error, monotonic() + Duration::from_secs(60)).unwrap()).collect();
            assert!(backoffs.iter().all(|backoff| *backoff <= Duration::from_millis(max)), "{attempts}");
            assert!(backoffs.iter().any(|backoff| *backoff > Duration::from_millis(max * 3 / 4)), "{attempts}");
            assert!(backoffs.iter().any(|backoff| *backoff < Duration::from_millis(max / 4)), "{attempts}");
        }
        assert_eq!(backoff(8, &error, monotonic() + Duration::from_secs(60)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn backoff_honors_retry_after_and_the_deadline() {
        let retry_after = Some(Duration::from_secs(3));
        let error = Error { retry_after, ..answered(503, Reason::UpstreamUnavailable) };
        assert_eq!(backoff(1, &error, monotonic() + Duration::from_secs(4)), Some(Duration::from_secs(3)));
        assert_eq!(backoff(1, &error, monotonic() + Duration::from_secs(3)), None);
        let forever = Error { retry_after: Some(Duration::MAX), ..error };
        assert_eq!(backoff(1, &forever, monotonic() + Duration::from_secs(4)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_sent_attempt_makes_the_call_maybe_sent() {
        let budget = Budget::new();
        let mut retry = RetryState::new(&POLICY, &budget, true, monotonic() + Duration::from_secs(60));
        retry.start_attempt();
        let decision = retry.fail(answered(503, Reason::UpstreamUnavailable), Signature::default());
        assert!(matches!(decision, Decision::Retry(_)));
        let error = retry.give_up(Error::deadline_before_send("no credentials"));
        assert_eq!((error.progress, error.attempts), (Progress::MaybeSent, 1));
        let throttled = Error::new(Reason::UpstreamThrottled, Progress::NotSent);
        assert_eq!(retry.previous_or(throttled).reason, Reason::UpstreamUnavailable);
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_time_out_only_in_favor_of_a_retry() {
        let secs = Duration::from_secs;
        let budget = Budget::new();
        let now = monotonic();
        let policy = Retry { attempts: 3, ..POLICY };
        let timeout = |idempotent, attempts, timeouts, left: u64| {
            let mut retry = RetryState::new(&policy, &budget, idempotent, now + secs(left));
            (retry.attempts, retry.timeouts) = (attempts, timeouts);
            retry.attempt_timeout(now).map(|timeout| (timeout - now).as_secs())
        };
        assert_eq!(timeout(true, 1, 0, 10), Some(4));
        assert_eq!(timeout(true, 1, 0, 5), Some(4), "a short deadline");
        assert_eq!(timeout(true, 1, 0, 4), None, "no time is left for a retry");
        assert_eq!(timeout(true, 2, 1, 8), Some(4), "the retry has as much time");
        assert_eq!(timeout(true, 2, 1, 7), None, "the retry would have less time");
        assert_eq!(timeout(true, 3, 0, 60), None, "the last attempt");
        assert_eq!(timeout(false, 1, 0, 60), None, "not idempotent");
        let mut retry = RetryState::new(&policy, &budget, true, now + secs(60));
        while budget.withdraw() {}
        assert!(!retry.reserve(), "no retry is left in the budget");
        (0..5).for_each(|_| budget.deposit(monotonic()));
        assert!(retry.reserve() && !budget.withdraw());
        retry.start_attempt();
        let error = Error::new(Reason::UpstreamTimeout, Progress::MaybeSent);
        assert!(matches!(retry.fail(error.clone(), Signature::default()), Decision::Retry(_)), "the reserved retry");
        retry.start_attempt();
        assert!(matches!(retry.fail(error, Signature::default()), Decision::GiveUp(_)), "it is used once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_signed_again_once() {
        let budget = Budget::new();
        let mut retry = RetryState::new(&POLICY, &budget, false, monotonic() + Duration::from_secs(60));
        let skewed = Answer { http_status: 401, clock_skew: Some(1200), ..Answer::default() };
        let error = Error::answered(Reason::UpstreamCredentials, skewed);
        retry.start_attempt();
        assert_eq!(retry.fail(error.clone(), Signature::default()), Decision::Resign);
        retry.start_attempt();
        assert_eq!(retry.fail(error.clone(), Signature::default()), Decision::GiveUp(Error { attempts: 2, ..error }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejected_trial_is_signed_again_once_with_accepted_credentials() {
        let of_trial = Signature { is_trial: true, ..Signature::default() };
        let rejected = answered(401, Reason::UpstreamCredentials);
        let skewed = Answer { http_status: 401, clock_skew: Some(1200), ..Answer::default() };
        let skewed = Error::answered(Reason::UpstreamCredentials, skewed);
        for idempotent in [true, false] {
            let budget = Budget::new();
            let state = || RetryState::new(&POLICY, &budget, idempotent, monotonic() + Duration::from_secs(60));
            let mut retry = state();
            let after = |attempts, error: &Error| Error { attempts, ..error.clone() };
            retry.start_attempt();
            assert_eq!(retry.fail(skewed.clone(), of_trial), Decision::Resign, "the clock comes first");
            retry.start_attempt();
            assert_eq!(retry.fail(rejected.clone(), of_trial), Decision::SignWithAccepted(after(2, &rejected)));
            assert!(!retry.may_have_been_carried_out(), "a 401 is not carried out");
            retry.start_attempt();
            assert_eq!(retry.fail(rejected.clone(), of_trial), Decision::GiveUp(after(3, &rejected)), "once");
            let unavailable = answered(503, Reason::UpstreamUnavailable);
            let mut retry = state();
            retry.start_attempt();
            retry.fail(rejected.clone(), of_trial);
            for _ in 1..POLICY.attempts {
                retry.start_attempt();
                let decision = retry.fail(unavailable.clone(), Signature::default());
                assert_eq!(matches!(decision, Decision::Retry(_)), idempotent, "the rejected attempt is not counted");
            }
            let scm_code = Answer { http_status: 401, code: Some("SCM.4002".to_owned()), ..Answer::default() };
            for (error, signature, is_rejected_trial) in [
                (&answered(401, Reason::UpstreamAccount), of_trial, true),
                (&answered(401, Reason::UpstreamTooLarge), of_trial, true),
                (&rejected, Signature::default(), false),
                (&skewed, Signature { clock_offset: 1200, ..of_trial }, false),
                (&Error::answered(Reason::UpstreamAccount, scm_code), of_trial, false),
                (&answered(400, Reason::CertificateState), of_trial, false),
            ] {
                let mut retry = state();
                retry.start_attempt();
                let expected = if is_rejected_trial { Decision::SignWithAccepted } else { Decision::GiveUp };
                assert_eq!(retry.fail(error.clone(), signature), expected(after(1, error)));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn retries_are_a_fifth_of_the_calls_plus_ten_a_second() {
        let budget = Budget::new();
        let granted = |budget: &Budget| (0..1000).filter(|_| budget.withdraw()).count();
        assert_eq!(granted(&budget), 10);
        (0..100).for_each(|_| budget.deposit(monotonic()));
        assert_eq!(granted(&budget), 20);
        advance(Duration::from_secs(2)).await;
        assert_eq!(granted(&budget), 10);
        advance(Duration::from_secs(3600)).await;
        assert_eq!(granted(&budget), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn retries_that_the_budget_prevents_are_counted_once() {
        let unavailable = || answered(503, Reason::UpstreamUnavailable);
        let exhausted_after = async |work: &dyn Fn(&mut RetryState<'_>), later: Option<Error>| {
            let budget = Budget::new();
            while budget.withdraw() {}
            let mut retry = RetryState::new(&POLICY, &budget, true, monotonic() + Duration::from_secs(60));
            retry.start_attempt();
            work(&mut retry);
            advance(Duration::from_secs(2)).await; // fills the budget
            if let Some(error) = later
                && let Decision::Retry(_) = retry.fail(error, Signature::default())
            {
                retry.start_attempt();
            }
            assert_eq!(budget.exhausted(), 0, "the retry may still be made");
            drop(retry);
            budget.exhausted()
        };
        let hangs = |retry: &mut RetryState<'_>| assert!(!retry.reserve());
        let fails = |retry: &mut RetryState<'_>| {
            assert!(matches!(retry.fail(unavailable(), Signature::default()), Decision::GiveUp(_)))
        };
        let hangs_and_fails = |retry: &mut RetryState<'_>| {
            hangs(retry);
            fails(retry);
        };
        let is_final = |retry: &mut RetryState<'_>| {
            assert!(matches!(
                retry.fail(answered(400, Reason::InvalidRequest), Signature::default()),
                Decision::GiveUp(_)
            ));
        };
        assert_eq!(exhausted_after(&fails, None).await, 1);
        assert_eq!(exhausted_after(&hangs, None).await, 1, "a call that ends during the attempt");
        assert_eq!(exhausted_after(&hangs_and_fails, None).await, 1, "one retry is counted once");
        assert_eq!(exhausted_after(&hangs, Some(unavailable())).await, 0, "a retry that is made in the end");
        assert_eq!(exhausted_after(&is_final, None).await, 0, "a failure that is not retried");
    }
}
