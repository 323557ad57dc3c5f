//! One project's key, and what keeps it from being locked: SCM locks a key for five minutes after more than five
//! refused signatures in a row, for everybody who uses it.
//!
//! A key that has not succeeded yet, or was refused last, has few calls in flight; others wait for their place. At the
//! second refusal in a row its circuit opens, for five minutes or until the key changes. Then one call probes.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::{
    clock,
    error::{Error, Progress, Reason},
    secret::Credentials,
};

/// Calls in flight with a key of which it is not known that it is good.
const UNPROVEN: u32 = 3;

/// Refusals in a row that open the circuit.
const REFUSALS: u32 = 2;

/// Refusals in a row that open the circuit when they are the clock's fault.
const REFUSALS_BY_CLOCK: u32 = 4;

/// As long as SCM's own lock.
const OPEN: Duration = Duration::from_secs(300);

/// What an attempt tells about the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// SCM took the signature.
    Accepted,
    /// SCM refused it.
    Refused,
    /// SCM refused it for its date alone.
    Expired,
    /// Nothing.
    Unknown,
}

impl Verdict {
    /// SCM's own words stand behind the signature check; everything else might come from before it.
    pub(super) fn of<R>(result: &Result<R, Error>) -> Self {
        let Err(error) = result else { return Self::Accepted };
        let code = error.answer.as_ref().and_then(|answer| answer.code.as_deref());
        match error.reason {
            Reason::UpstreamCredentials if error.is_expired() => Self::Expired,
            Reason::UpstreamCredentials => Self::Refused,
            _ if code.is_some_and(|code| code.starts_with("SCM.")) => Self::Accepted,
            _ => Self::Unknown,
        }
    }
}

#[derive(Debug)]
pub(super) struct Key {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// None before the first temporary key, and after one that expired.
    credentials: Option<Arc<Credentials>>,
    /// Counts keys: an attempt with an older one has nothing to say about this one.
    generation: u64,
    proven: bool,
    refusals: u32,
    by_clock: bool,
    in_flight: u32,
    open: Option<Instant>,
    probing: bool,
}

/// Leave to sign one attempt. Dropped without a verdict, the attempt tells nothing.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    key: &'a Key,
    credentials: Arc<Credentials>,
    generation: u64,
    probe: bool,
    verdict: Verdict,
}

enum Admission {
    Granted { credentials: Arc<Credentials>, probe: bool },
    Refused(Duration),
    Wait,
}

impl Key {
    pub(super) fn new(credentials: Option<Credentials>) -> Self {
        Self { state: Mutex::new(State::new(credentials, 0)), changed: Notify::new() }
    }

    /// Waits for a key and a place until the deadline.
    pub(super) async fn admit(&self, deadline: Instant) -> Result<Pass<'_>, Error> {
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.lock();
                match state.admit(clock::steady()) {
                    Admission::Granted { credentials, probe } => {
                        let (generation, verdict) = (state.generation, Verdict::Unknown);
                        return Ok(Pass { key: self, credentials, generation, probe, verdict });
                    }
                    Admission::Refused(wait) => {
                        let error = Error::new(Reason::UpstreamCredentials, Progress::NotSent);
                        return Err(Error { retry_after: Some(wait), ..error });
                    }
                    Admission::Wait => {}
                }
            }
            let waited = timeout_at(deadline, changed).await;
            waited.map_err(|_| Error::new(self.lock().awaited(), Progress::NotSent))?;
        }
    }

    /// Uses another key from now on, or none. Whether it is good is not known.
    pub(super) fn replace(&self, credentials: Option<Credentials>) {
        let mut state = self.lock();
        *state = State::new(credentials, state.generation + 1);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Whether calls are refused.
    pub(super) fn is_open(&self) -> bool {
        self.lock().open.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the state")
    }
}

impl State {
    fn new(credentials: Option<Credentials>, generation: u64) -> Self {
        let credentials = credentials.map(Arc::new);
        let (proven, by_clock, probing) = (false, false, false);
        Self { credentials, generation, proven, refusals: 0, by_clock, in_flight: 0, open: None, probing }
    }

    fn admit(&mut self, now: Instant) -> Admission {
        let Some(credentials) = self.credentials.clone() else { return Admission::Wait };
        match self.open {
            Some(until) if now < until => return Admission::Refused(until - now),
            Some(_) if self.probing => return Admission::Refused(OPEN),
            Some(_) => self.probing = true,
            None if self.in_flight >= self.places() => return Admission::Wait,
            None => {}
        }
        self.in_flight += 1;
        Admission::Granted { credentials, probe: self.probing && self.open.is_some() }
    }

    /// Why a call waited in vain.
    fn awaited(&self) -> Reason {
        if self.credentials.is_none() { Reason::UpstreamCredentials } else { Reason::Deadline }
    }

    fn places(&self) -> u32 {
        match self {
            // The clock was corrected: one call shows whether that helps.
            Self { by_clock: true, .. } => 1,
            Self { proven: true, refusals: 0, .. } => u32::MAX,
            _ => UNPROVEN,
        }
    }

    fn settle(&mut self, verdict: Verdict, probe: bool, now: Instant) {
        self.in_flight -= 1;
        self.probing &= !probe;
        match verdict {
            Verdict::Accepted => {
                (self.proven, self.refusals, self.by_clock, self.open) = (true, 0, false, None);
            }
            Verdict::Refused => self.refused(REFUSALS, now),
            Verdict::Expired => {
                self.by_clock = true;
                self.refused(REFUSALS_BY_CLOCK, now);
            }
            Verdict::Unknown => {} // after a probe, the next call probes
        }
    }

    fn refused(&mut self, enough: u32, now: Instant) {
        self.refusals += 1;
        if self.refusals >= enough {
            self.open = Some(now + OPEN);
        }
    }
}

impl Pass<'_> {
    /// What signs the attempt.
    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Ends the attempt.
    pub(super) fn settle(mut self, verdict: Verdict) {
        self.verdict = verdict; // told when it is dropped
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut state = self.key.lock();
        if state.generation == self.generation {
            state.settle(self.verdict, self.probe, clock::steady());
        }
        drop(state);
        self.key.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::time::advance;

    use super::{Key, Pass, REFUSALS_BY_CLOCK, Verdict};
    use crate::{clock::steady, error::Reason, secret::Credentials};

    fn credentials() -> Credentials {
        Credentials { access_key: "AK".to_owned(), secret_key: "SK".into(), security_token: None }
    }

    /// A place, if there is one at once.
    async fn try_admit(key: &Key) -> Result<Pass<'_>, Reason> {
        key.admit(steady()).await.map_err(|error| error.reason)
    }

    async fn attempt(key: &Key, verdict: Verdict) {
        try_admit(key).await.unwrap().settle(verdict);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_has_not_succeeded_yet_has_three_calls_in_flight() {
        let key = Key::new(Some(credentials()));
        let mut passes = Vec::new();
        for _ in 0..3 {
            passes.push(try_admit(&key).await.unwrap());
        }
        assert_eq!(try_admit(&key).await.unwrap_err(), Reason::Deadline, "it waits, and its time is over");
        passes.pop().unwrap().settle(Verdict::Unknown);
        passes.push(try_admit(&key).await.unwrap());
        passes.pop().unwrap().settle(Verdict::Accepted);
        for _ in 0..100 {
            passes.push(try_admit(&key).await.unwrap());
        }
        passes.pop().unwrap().settle(Verdict::Refused);
        assert_eq!(try_admit(&key).await.unwrap_err(), Reason::Deadline, "refused last: it is in doubt again");
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_refusal_in_a_row_opens_it_for_five_minutes_then_one_call_probes() {
        let key = Key::new(Some(credentials()));
        for verdict in [Verdict::Refused, Verdict::Accepted, Verdict::Refused, Verdict::Unknown] {
            attempt(&key, verdict).await;
            assert!(!key.is_open());
        }
        attempt(&key, Verdict::Refused).await;
        assert!(key.is_open());
        advance(Duration::from_millis(299_999)).await;
        assert_eq!(try_admit(&key).await.unwrap_err(), Reason::UpstreamCredentials);
        advance(Duration::from_millis(1)).await;
        let probe = try_admit(&key).await.unwrap();
        assert_eq!(try_admit(&key).await.unwrap_err(), Reason::UpstreamCredentials, "one probe at a time");
        probe.settle(Verdict::Refused);
        assert_eq!(try_admit(&key).await.unwrap_err(), Reason::UpstreamCredentials, "five minutes more");
        advance(Duration::from_secs(300)).await;
        drop(try_admit(&key).await.unwrap());
        attempt(&key, Verdict::Accepted).await;
        assert!(!key.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn another_key_closes_it_and_the_old_ones_calls_do_not_count() {
        let key = Key::new(Some(credentials()));
        let old = try_admit(&key).await.unwrap();
        attempt(&key, Verdict::Refused).await;
        attempt(&key, Verdict::Refused).await;
        assert!(key.is_open());
        key.replace(Some(credentials()));
        assert!(!key.is_open());
        old.settle(Verdict::Refused);
        attempt(&key, Verdict::Refused).await;
        assert!(!key.is_open(), "one refusal of its own");
    }

    #[tokio::test(start_paused = true)]
    async fn five_hundred_waiting_calls_never_reach_the_vendors_lock() {
        let key = Arc::new(Key::new(Some(credentials())));
        let calls = (0..500).map(|_| {
            let key = key.clone();
            tokio::spawn(async move {
                let pass = key.admit(steady() + Duration::from_secs(10)).await.map_err(|error| error.reason)?;
                tokio::time::sleep(Duration::from_millis(50)).await;
                pass.settle(Verdict::Refused);
                Ok::<(), Reason>(())
            })
        });
        let mut refused_by_scm = 0;
        for call in calls.collect::<Vec<_>>() {
            match call.await.unwrap() {
                Ok(()) => refused_by_scm += 1,
                Err(reason) => assert_eq!(reason, Reason::UpstreamCredentials),
            }
        }
        assert_eq!(refused_by_scm, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wrong_clock_is_corrected_by_one_call_at_a_time() {
        let key = Key::new(Some(credentials()));
        let first = [try_admit(&key).await.unwrap(), try_admit(&key).await.unwrap(), try_admit(&key).await.unwrap()];
        first.into_iter().for_each(|pass| pass.settle(Verdict::Expired));
        assert!(!key.is_open());
        let corrected = try_admit(&key).await.unwrap();
        assert_eq!(try_admit(&key).await.unwrap_err(), Reason::Deadline, "the others wait for its outcome");
        corrected.settle(Verdict::Refused);
        assert!(key.is_open(), "four refusals in a row, and no fifth");
        const { assert!(REFUSALS_BY_CLOCK < 5) }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_key_calls_wait_for_one_and_then_for_their_place() {
        let key = Arc::new(Key::new(None));
        assert_eq!(try_admit(&key).await.unwrap_err(), Reason::UpstreamCredentials, "its time is over");
        let calls: Vec<_> = (0..100)
            .map(|_| {
                let key = key.clone();
                tokio::spawn(async move {
                    let pass = key.admit(steady() + Duration::from_secs(10)).await.unwrap();
                    assert_eq!(pass.credentials().access_key, "AK");
                    pass.settle(Verdict::Accepted);
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert!(calls.iter().all(|call| !call.is_finished()));
        key.replace(Some(credentials()));
        for call in calls {
            call.await.unwrap();
        }
        let held = try_admit(&key).await.unwrap();
        key.replace(None);
        held.settle(Verdict::Accepted);
        assert_eq!(try_admit(&key).await.unwrap_err(), Reason::UpstreamCredentials, "it expired");
    }
}
