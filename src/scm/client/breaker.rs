//! The circuit breaker in front of SCM: opens after failed calls in a row, then lets one probe at a time through.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{last_error::LastError, response_time::ResponseTime};
use crate::{
    clock::{self, Moment},
    config,
    error::{Error, Progress, Reason},
    jitter,
    ops::status::{self, Circuit, CircuitState},
    scm::api::{Method, methods::METHODS},
    sync::{Mutex, MutexGuard},
};

/// What an attempt or a call says about SCM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// SCM responded.
    Success,
    /// SCM is unreachable or unavailable.
    Failure,
    /// Nothing.
    Ignored,
}

impl Outcome {
    /// Returns what the result of an attempt says about SCM.
    pub(super) fn of<R>(result: &Result<R, Error>) -> Self {
        match result {
            Ok(_) => Self::Success,
            Err(Error {
                reason: Reason::UpstreamUnavailable | Reason::UpstreamTimeout | Reason::UpstreamOutcomeUnknown,
                ..
            }) => Self::Failure,
            Err(error) if error.progress == Progress::Answered => Self::Success,
            Err(_) => Self::Ignored,
        }
    }
}

#[derive(Debug)]
pub(super) struct Breaker {
    project_id: String,
    policy: config::Breaker,
    inner: Mutex<Inner>,
    last_error: LastError,
}

#[derive(Debug)]
struct Inner {
    state: State,
    /// By the number of the method, because SCM takes longer for some.
    response_times: Box<[ResponseTime]>,
    /// When SCM responded last.
    last_response: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed {
        failures: u32,
    },
    /// Since `opened`. A failed probe changes only `until`.
    Open {
        opened: Instant,
        until: Instant,
        backoff: Duration,
    },
    /// A probe is in flight since `since`.
    HalfOpen {
        opened: Instant,
        backoff: Duration,
        since: Instant,
    },
}

/// A permit for one call. On drop it records what the last attempt says that says anything.
#[derive(Debug)]
pub(super) struct BreakerPermit<'a> {
    breaker: &'a Breaker,
    method: &'static Method,
    probe: bool,
    outcome: Outcome,
    attempt: AttemptTime,
    hand_over: Option<HandOver>,
}

/// Whether a task waits for the response of an attempt after its call has ended. The task then records the outcome.
#[derive(Debug, Clone, Default)]
pub(super) struct HandOver(Arc<AtomicBool>);

impl HandOver {
    /// Leaves the outcome to the task.
    pub(super) fn set(&self) {
        self.0.store(true, Relaxed);
    }

    /// Returns whether the outcome is left to the task.
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// The time of a call's current or last attempt.
#[derive(Debug, Clone, Copy)]
enum AttemptTime {
    /// It does not matter.
    Irrelevant,
    /// There is no response since then.
    Pending(Instant),
    /// There was a response after this time.
    Responded(Duration),
}

impl Breaker {
    /// Creates a closed breaker.
    pub(super) fn new(project_id: String, policy: config::Breaker) -> Self {
        let state = State::Closed { failures: 0 };
        let response_times = METHODS.iter().map(|method| ResponseTime::of(method)).collect();
        let inner = Inner { state, response_times, last_response: None };
        Self { project_id, policy, inner: Mutex::new(inner), last_error: LastError::default() }
    }

    /// Returns a permit for a call of this method, or how long calls are rejected.
    pub(super) fn try_acquire(&self, method: &'static Method, now: Instant) -> Result<BreakerPermit<'_>, Duration> {
        let state = &mut self.lock().state;
        if let (_, Some(until)) = state.circuit(now) {
            return Err(until - now);
        }
        let probe = match *state {
            State::Closed { .. } => false,
            State::Open { opened, backoff, .. } | State::HalfOpen { opened, backoff, .. } => {
                *state = State::HalfOpen { opened, backoff, since: now };
                true
            }
        };
        let outcome = Outcome::Ignored;
        Ok(BreakerPermit { breaker: self, method, probe, outcome, attempt: AttemptTime::Irrelevant, hand_over: None })
    }

    /// Returns whether calls are rejected.
    pub(super) fn is_open(&self) -> bool {
        self.lock().state.circuit(clock::monotonic()).0.rejects_calls()
    }

    /// Returns the state for the status page.
    pub(super) fn status(&self, moment: &Moment) -> Circuit {
        let state = self.lock().state;
        let (circuit, until) = state.circuit(moment.monotonic);
        Circuit::new(circuit, state.opened(), until, moment)
    }

    /// Returns the last error of the project for the status page.
    pub(super) fn last_error(&self, moment: &Moment) -> Option<status::LastError> {
        self.last_error.status(moment)
    }

    /// Records the result of an attempt that its call did not wait for.
    pub(super) fn record_late<R>(
        &self,
        method: &'static Method,
        probe: bool,
        result: &Result<R, Error>,
        time: Duration,
    ) {
        match result {
            Ok(_) => self.record(method, probe, Outcome::Success, AttemptTime::Responded(time)),
            Err(Error { reason: Reason::Deadline, .. }) => {
                self.last_error.record_missing_response();
                self.record(method, probe, Outcome::Failure, AttemptTime::Irrelevant); // the end of the wait
            }
            Err(error) => {
                self.last_error.record(error);
                self.record(method, probe, Outcome::of(result), AttemptTime::Irrelevant);
            }
        }
    }

    fn record(&self, method: &'static Method, probe: bool, outcome: Outcome, attempt: AttemptTime) {
        let Inner { state, response_times, last_response } = &mut *self.lock();
        let response_time = &mut response_times[method.number];
        let outcome = match attempt {
            // The deadline was exceeded, or the caller has gone, which clients do at their deadline. If SCM has responded to
            // another call meanwhile, only this one was slow.
            AttemptTime::Pending(since)
                if last_response.is_none_or(|last| last < since)
                    && response_time.is_exceeded_by(clock::monotonic() - since) =>
            {
                self.last_error.record_missing_response();
                Outcome::Failure
            }
            AttemptTime::Responded(time) => {
                response_time.observe(time);
                outcome
            }
            AttemptTime::Pending(_) | AttemptTime::Irrelevant => outcome,
        };
        if outcome == Outcome::Success {
            *last_response = Some(clock::monotonic());
        }
        *state = match (*state, probe, outcome) {
            (State::Open { .. } | State::HalfOpen { .. }, true, Outcome::Success) => {
                tracing::info!(project_id = self.project_id, "circuit closed");
                State::Closed { failures: 0 }
            }
            (State::HalfOpen { opened, backoff, .. }, true, Outcome::Failure) => {
                open(opened, (backoff * 2).min(self.policy.max_backoff))
            }
            (State::HalfOpen { opened, backoff, .. }, true, Outcome::Ignored) => {
                State::Open { opened, until: clock::monotonic(), backoff } // the next call is the probe
            }
            (State::Closed { .. }, false, Outcome::Success) => State::Closed { failures: 0 },
            (State::Closed { failures }, false, Outcome::Failure) if failures + 1 >= self.policy.max_failures => {
                tracing::warn!(project_id = self.project_id, "circuit opened");
                open(clock::monotonic(), self.policy.backoff)
            }
            (State::Closed { failures }, false, Outcome::Failure) => State::Closed { failures: failures + 1 },
            // Calls in flight when the breaker opened change nothing.
            (unchanged, ..) => unchanged,
        };
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while the lock is held")
    }
}

impl State {
    /// Returns the state of the circuit at this time, and until when calls are rejected.
    fn circuit(self, now: Instant) -> (CircuitState, Option<Instant>) {
        match self {
            Self::Closed { .. } => (CircuitState::Closed, None),
            Self::Open { until, .. } if now < until => (CircuitState::Open, Some(until)),
            // A probe that hangs must not keep other calls from probing.
            Self::HalfOpen { backoff, since, .. } if now < since + backoff => {
                (CircuitState::HalfOpen, Some(since + backoff))
            }
            Self::Open { .. } | Self::HalfOpen { .. } => (CircuitState::ProbeDue, None),
        }
    }

    /// Returns when the circuit opened, if it is not closed.
    fn opened(self) -> Option<Instant> {
        match self {
            Self::Closed { .. } => None,
            Self::Open { opened, .. } | Self::HalfOpen { opened, .. } => Some(opened),
        }
    }
}

fn open(opened: Instant, backoff: Duration) -> State {
    State::Open { opened, until: clock::monotonic() + jitter::spread(backoff), backoff }
}

impl BreakerPermit<'_> {
    /// Returns whether the call is the probe of an open circuit.
    pub(super) fn is_probe(&self) -> bool {
        self.probe
    }

    /// Records the start of an attempt, whose outcome may be handed over, or of the wait for one.
    pub(super) fn start_attempt(&mut self, now: Instant, hand_over: Option<HandOver>) {
        self.attempt = AttemptTime::Pending(now);
        self.hand_over = hand_over;
    }

    /// Records that the wait for an attempt has failed.
    pub(super) fn end_wait(&mut self, error: &Error) {
        if error.reason != Reason::Deadline {
            self.attempt = AttemptTime::Irrelevant;
        }
    }

    /// Records the result of the attempt.
    pub(super) fn end_attempt<R>(&mut self, result: &Result<R, Error>) {
        if let Err(error) = result {
            self.breaker.last_error.record(error);
        }
        match Outcome::of(result) {
            Outcome::Ignored => {
                if let Err(error) = result {
                    self.end_wait(error);
                }
            }
            outcome => {
                self.outcome = outcome;
                self.attempt = match self.attempt {
                    // An error response may be faster than others.
                    AttemptTime::Pending(since) if result.is_ok() => AttemptTime::Responded(clock::monotonic() - since),
                    _ => AttemptTime::Irrelevant,
                };
            }
        }
    }
}

impl Drop for BreakerPermit<'_> {
    fn drop(&mut self) {
        let is_pending = matches!(self.attempt, AttemptTime::Pending(_));
        if is_pending && self.hand_over.as_ref().is_some_and(HandOver::is_set) {
            return;
        }
        self.breaker.record(self.method, self.probe, self.outcome, self.attempt);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::{AttemptTime, Breaker, BreakerPermit, Method, Outcome};
    use crate::{
        clock::{Clock, Moment, monotonic},
        config,
        error::{Error, Progress, Reason},
        ops::status::CircuitState,
        scm::api::{
            RestMethod as _,
            methods::{PushCertificate, SaveInfo},
        },
    };

    fn breaker() -> Breaker {
        Breaker::new(
            "p".to_owned(),
            config::Breaker { max_failures: 3, backoff: Duration::from_secs(1), max_backoff: Duration::from_secs(4) },
        )
    }

    fn try_acquire(breaker: &Breaker) -> Result<BreakerPermit<'_>, Duration> {
        breaker.try_acquire(SaveInfo::METHOD, monotonic())
    }

    fn record(mut permit: BreakerPermit<'_>, outcome: Outcome) {
        permit.outcome = outcome;
    }

    fn calls(breaker: &Breaker, outcomes: &[Outcome]) {
        outcomes.iter().for_each(|outcome| record(try_acquire(breaker).unwrap(), *outcome));
    }

    /// Waits for the time that a rejected call gets, which is exact except for jitter.
    async fn wait(breaker: &Breaker, about: u64) {
        let wait = try_acquire(breaker).unwrap_err();
        let about = Duration::from_secs(about);
        assert!(wait >= about.mul_f64(0.9) && wait <= about.mul_f64(1.1), "{wait:?}");
        advance(wait - Duration::from_millis(1)).await;
        assert!(try_acquire(breaker).is_err(), "not a moment earlier");
        advance(Duration::from_millis(1)).await;
    }

    /// Returns the state that the status page shows, and whether it has the end of the wait.
    fn state(breaker: &Breaker) -> (CircuitState, bool) {
        let circuit = breaker.status(&Moment::now(&Clock::system()));
        (circuit.state, circuit.until.is_some())
    }

    #[tokio::test(start_paused = true)]
    async fn opens_after_failures_in_a_row() {
        use Outcome::{Failure, Ignored, Success};
        let breaker = breaker();
        calls(&breaker, &[Failure, Failure, Success, Failure, Failure, Ignored]);
        assert!(!breaker.is_open());
        calls(&breaker, &[Failure]);
        assert!(breaker.is_open() && try_acquire(&breaker).is_err());
        assert_eq!(state(&breaker), (CircuitState::Open, true));
        wait(&breaker, 1).await;
        assert_eq!((state(&breaker), breaker.is_open()), ((CircuitState::ProbeDue, false), false));
    }

    #[tokio::test(start_paused = true)]
    async fn one_probe_at_a_time_and_the_backoff_doubles() {
        let breaker = breaker();
        calls(&breaker, &[Outcome::Failure; 3]);
        for about in [1, 2, 4, 4] {
            wait(&breaker, about).await;
            let probe = try_acquire(&breaker).unwrap();
            assert!(try_acquire(&breaker).is_err(), "one probe at a time");
            record(probe, Outcome::Failure);
        }
        wait(&breaker, 4).await;
        record(try_acquire(&breaker).unwrap(), Outcome::Success);
        assert!(!breaker.is_open());
        calls(&breaker, &[Outcome::Failure; 2]);
        assert!(!breaker.is_open(), "it counts from zero again");
    }

    #[tokio::test(start_paused = true)]
    async fn an_ignored_probe_lets_the_next_call_probe() {
        let breaker = breaker();
        calls(&breaker, &[Outcome::Failure; 3]);
        wait(&breaker, 1).await;
        drop(try_acquire(&breaker).unwrap());
        record(try_acquire(&breaker).unwrap(), Outcome::Success);
        assert!(!breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_hanging_probe_does_not_block_others() {
        let breaker = breaker();
        calls(&breaker, &[Outcome::Failure; 3]);
        wait(&breaker, 1).await;
        let hanging = try_acquire(&breaker).unwrap();
        advance(Duration::from_millis(400)).await;
        assert_eq!(try_acquire(&breaker).unwrap_err(), Duration::from_millis(600), "the reported wait is exact");
        assert_eq!(state(&breaker), (CircuitState::HalfOpen, true));
        assert!(breaker.is_open());
        advance(Duration::from_millis(600)).await;
        assert_eq!(state(&breaker), (CircuitState::ProbeDue, false));
        assert!(!breaker.is_open(), "the next call is sent");
        record(try_acquire(&breaker).unwrap(), Outcome::Success);
        assert!(!breaker.is_open());
        drop(hanging);
        assert!(!breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_in_flight_when_it_opens_change_nothing() {
        let breaker = breaker();
        let late = [try_acquire(&breaker).unwrap(), try_acquire(&breaker).unwrap()];
        calls(&breaker, &[Outcome::Failure; 3]);
        late.into_iter().for_each(|permit| record(permit, Outcome::Success));
        assert!(breaker.is_open());
    }

    /// Makes a call whose only attempt ends with this result, or without one, after so many milliseconds.
    async fn attempt(breaker: &Breaker, time: u64, result: Option<Result<(), Error>>) {
        attempt_of(SaveInfo::METHOD, breaker, time, result).await;
    }

    async fn attempt_of(method: &'static Method, breaker: &Breaker, time: u64, result: Option<Result<(), Error>>) {
        let mut permit = breaker.try_acquire(method, monotonic()).unwrap();
        permit.start_attempt(monotonic(), None);
        advance(Duration::from_millis(time)).await;
        result.iter().for_each(|result| permit.end_attempt(result));
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_that_hang_for_unusually_long_are_failures() {
        let deadline = || Some(Err(Error::new(Reason::Deadline, Progress::MaybeSent)));
        for result in [deadline(), None] {
            let breaker = breaker();
            for _ in 0..100 {
                attempt(&breaker, 400, Some(Ok(()))).await;
            }
            let last_error = || breaker.last_error(&Moment::now(&Clock::system())).map(|error| error.reason);
            for _ in 0..3 {
                attempt(&breaker, 399, result.clone()).await;
            }
            assert!(!breaker.is_open(), "a usual time");
            assert_eq!(last_error(), None, "a usual time");
            for _ in 0..3 {
                attempt(&breaker, 402, result.clone()).await;
            }
            assert!(breaker.is_open());
            assert_eq!(last_error(), Some("DEADLINE"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_method_is_not_compared_with_a_fast_one() {
        let deadline = || Some(Err(Error::new(Reason::Deadline, Progress::MaybeSent)));
        let breaker = breaker();
        for _ in 0..100 {
            attempt(&breaker, 5, Some(Ok(()))).await;
        }
        for _ in 0..9 {
            attempt_of(PushCertificate::METHOD, &breaker, 1000, deadline()).await;
        }
        assert!(!breaker.is_open(), "SCM may take that long to push");
        for _ in 0..3 {
            attempt(&breaker, 1000, deadline()).await;
        }
        assert!(breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn slow_failures_of_the_gateway_are_ignored() {
        let breaker = breaker();
        for _ in 0..9 {
            attempt(&breaker, 5000, Some(Err(Error::new(Reason::UpstreamTls, Progress::NotSent)))).await;
        }
        assert!(!breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_attempt_with_a_meaning_decides() {
        let failure = || Err(Error::new(Reason::UpstreamUnavailable, Progress::NotSent));
        let deadline = || Err(Error::new(Reason::Deadline, Progress::NotSent));
        for (results, outcome) in [
            (vec![failure(), deadline()], Outcome::Failure),
            (vec![failure(), Ok(())], Outcome::Success),
            (vec![Ok(()), failure()], Outcome::Failure),
            (vec![deadline()], Outcome::Ignored),
        ] {
            let breaker = breaker();
            let mut permit = try_acquire(&breaker).unwrap();
            for result in &results {
                permit.start_attempt(monotonic(), None);
                permit.end_attempt(result);
            }
            assert_eq!(permit.outcome, outcome, "{results:?}");
            assert_eq!(matches!(permit.attempt, AttemptTime::Responded(_)), outcome == Outcome::Success);
        }
    }
}
