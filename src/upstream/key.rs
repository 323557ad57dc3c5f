//! A project's key, and what keeps it from being locked: SCM locks an access key for five minutes after more than five
//! refused signatures in a row, for everybody who uses it.
//!
//! So refusals are counted per access key, whichever projects sign with it. One that has not succeeded yet, or was
//! refused last, has few calls in flight; others wait for their place. At the second refusal in a row its circuit opens,
//! for five minutes or until the key changes. Then one call probes. While a key is in doubt, what SCM says of it is heard
//! even where the call that sent it has given up (`attempt.rs`).

use std::{
    collections::BTreeMap,
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
        let answer = error.answer.as_deref();
        let code = answer.and_then(|answer| answer.code.as_deref());
        match error.reason {
            Reason::UpstreamCredentials if error.expired().is_some() => Self::Expired,
            Reason::UpstreamCredentials => Self::Refused,
            _ if code.is_some_and(|code| code.starts_with("SCM.")) => Self::Accepted,
            // The head is enough: a 401 whose body is too large was counted by SCM all the same.
            _ if answer.is_some_and(|answer| answer.http_status == 401) => Self::Refused,
            _ => Self::Unknown,
        }
    }
}

/// The guards of all access keys in use.
#[derive(Debug, Default)]
pub(super) struct Guards(Mutex<BTreeMap<String, Arc<Guard>>>);

impl Guards {
    /// The guard of an access key, the same for all who use it.
    fn of(&self, access_key: &str) -> Arc<Guard> {
        let mut guards = self.0.lock().expect("nothing panics while it holds the guards");
        guards.retain(|_, guard| Arc::strong_count(guard) > 1 || guard.lock().refusals > 0);
        guards.entry(access_key.to_owned()).or_default().clone()
    }
}

/// A project's key.
#[derive(Debug)]
pub(super) struct Key {
    guards: Arc<Guards>,
    /// None before the first temporary key, and after one that expired.
    current: Mutex<Option<(Arc<Credentials>, Arc<Guard>)>>,
    replaced: Notify,
}

/// Leave to sign one attempt. Dropped without a verdict, the attempt tells nothing.
#[derive(Debug)]
pub(super) struct Pass {
    guard: Arc<Guard>,
    credentials: Arc<Credentials>,
    admission: Admission,
    verdict: Verdict,
}

impl Key {
    pub(super) fn new(credentials: Option<Credentials>, guards: Arc<Guards>) -> Self {
        let key = Self { guards, current: Mutex::default(), replaced: Notify::new() };
        key.replace(credentials);
        key
    }

    /// Waits for a key and a place until the deadline.
    pub(super) async fn admit(&self, deadline: Instant) -> Result<Pass, Error> {
        loop {
            // Made before anything is looked at: what changes from here on wakes it.
            let replaced = self.replaced.notified();
            let Some((credentials, guard)) = self.lock().clone() else {
                let waited = timeout_at(deadline, replaced).await;
                let none = || Error::new(Reason::UpstreamCredentials, Progress::NotSent);
                waited.map_err(|_| Error { cause: Some("no credentials"), ..none() })?;
                continue;
            };
            let settled = guard.settled.notified();
            if clock::steady() > deadline {
                return Err(Error::too_late("deadline too short"));
            }
            match guard.lock().admit(clock::steady()) {
                Ok(Some(admission)) => {
                    let (guard, verdict) = (guard.clone(), Verdict::Unknown);
                    return Ok(Pass { guard, credentials, admission, verdict });
                }
                Ok(None) => {}
                Err(wait) => return Err(Error::held_back(Reason::UpstreamCredentials, wait)),
            }
            let changed = async {
                tokio::select! { () = settled => {}, () = replaced => {} }
            };
            let waited = timeout_at(deadline, changed).await;
            waited.map_err(|_| Error::too_late("waiting for credential verification"))?;
        }
    }

    /// Uses another key from now on, or none. Whether it is good is not known.
    pub(super) fn replace(&self, credentials: Option<Credentials>) {
        let current = credentials.map(|credentials| {
            let guard = self.guards.of(&credentials.access_key);
            guard.lock().renew();
            guard.settled.notify_waiters();
            (Arc::new(credentials), guard)
        });
        *self.lock() = current;
        self.replaced.notify_waiters();
    }

    /// Something has happened that may make SCM refuse what it took before: one call at a time until one succeeds.
    pub(super) fn doubt(&self) {
        if let Some((_, guard)) = &*self.lock() {
            guard.lock().careful = true;
        }
    }

    /// Whether calls are refused.
    pub(super) fn is_open(&self) -> bool {
        self.lock().as_ref().is_some_and(|(_, guard)| guard.lock().is_open(clock::steady()))
    }

    /// Whether the next call is sent: with a key that is not refused at the moment. When the five minutes of one that was
    /// are over, it is usable again: an instance that gets no call would never probe it.
    pub(super) fn is_usable(&self) -> bool {
        let now = clock::steady();
        self.lock().as_ref().is_some_and(|(_, guard)| guard.lock().open.is_none_or(|until| until <= now))
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Arc<Credentials>, Arc<Guard>)>> {
        self.current.lock().expect("nothing panics while it holds the key")
    }
}

/// What is known of one access key.
#[derive(Debug, Default)]
struct Guard {
    state: Mutex<State>,
    settled: Notify,
}

impl Guard {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the state")
    }
}

#[derive(Debug, Default)]
struct State {
    proven: bool,
    /// One call at a time, until one succeeds.
    careful: bool,
    /// In a row.
    refusals: u32,
    /// Ever: an attempt from before the last one has nothing good to say.
    all_refusals: u64,
    in_flight: u32,
    open: Option<Instant>,
    probing: bool,
}

/// What an attempt has to give back.
#[derive(Debug, Clone, Copy)]
struct Admission {
    all_refusals: u64,
    probe: bool,
}

impl State {
    /// A place; none at the moment; or how long calls are refused.
    fn admit(&mut self, now: Instant) -> Result<Option<Admission>, Duration> {
        match self.open {
            Some(until) if now < until => return Err(until - now),
            Some(_) if self.probing => return Err(OPEN),
            Some(_) => self.probing = true,
            None if self.in_flight >= self.places() => return Ok(None),
            None => {}
        }
        self.in_flight += 1;
        Ok(Some(Admission { all_refusals: self.all_refusals, probe: self.open.is_some() }))
    }

    fn places(&self) -> u32 {
        match self {
            Self { careful: true, .. } => 1,
            Self { proven: true, refusals: 0, .. } => u32::MAX,
            _ => UNPROVEN,
        }
    }

    /// The secret may be another one now. SCM's count goes on.
    fn renew(&mut self) {
        (self.proven, self.open) = (false, None);
        self.careful = self.refusals > 0;
    }

    fn settle(&mut self, verdict: Verdict, admission: Admission, now: Instant) {
        self.in_flight -= 1;
        self.probing &= !admission.probe;
        match verdict {
            Verdict::Accepted if admission.all_refusals == self.all_refusals => {
                if self.open.is_some() {
                    tracing::info!("access key accepted again");
                }
                (self.proven, self.careful, self.refusals, self.open) = (true, false, 0, None);
            }
            Verdict::Refused => self.refused(now),
            Verdict::Expired => {
                self.careful = true;
                // What was signed before the clock was known to be wrong tells nothing new.
                if admission.all_refusals == self.all_refusals {
                    self.refused(now);
                }
            }
            Verdict::Accepted | Verdict::Unknown => {} // after a probe, the next call probes
        }
    }

    fn refused(&mut self, now: Instant) {
        self.refusals += 1;
        self.all_refusals += 1;
        if self.refusals >= REFUSALS {
            if self.open.is_none() {
                tracing::error!("access key rejected twice, suspended for 5 minutes");
            }
            self.open = Some(now + OPEN);
        }
    }

    fn is_open(&self, now: Instant) -> bool {
        self.probing || self.open.is_some_and(|until| now < until)
    }
}

impl Pass {
    /// What signs the attempt.
    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Whether so little is known of the key that no word of SCM about it must be missed.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.admission.probe || self.guard.lock().places() != u32::MAX
    }

    /// Ends the attempt.
    pub(super) fn settle(mut self, verdict: Verdict) {
        self.verdict = verdict; // told when it is dropped
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.guard.lock().settle(self.verdict, self.admission, clock::steady());
        self.guard.settled.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::time::advance;

    use super::{Guards, Key, Pass, Verdict};
    use crate::{clock::steady, error::Reason, secret::Credentials};

    fn credentials() -> Credentials {
        Credentials { access_key: "AK".to_owned(), secret_key: "SK".into(), security_token: None }
    }

    fn key_of(credentials: Option<Credentials>) -> Key {
        Key::new(credentials, Arc::<Guards>::default())
    }

    /// A place, if there is one at once.
    async fn try_admit(key: &Key) -> Result<Pass, Reason> {
        key.admit(steady()).await.map_err(|error| error.reason)
    }

    async fn attempt(key: &Key, verdict: Verdict) {
        try_admit(key).await.unwrap().settle(verdict);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_has_not_succeeded_yet_has_three_calls_in_flight() {
        let key = key_of(Some(credentials()));
        let mut passes = Vec::new();
        for _ in 0..3 {
            passes.push(try_admit(&key).await.unwrap());
        }
        let error = key.admit(steady()).await.unwrap_err();
        assert_eq!(
            (error.reason, error.cause),
            (Reason::Deadline, Some("waiting for credential verification")),
            "its time is over"
        );
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
        let key = key_of(Some(credentials()));
        for verdict in [Verdict::Refused, Verdict::Accepted, Verdict::Refused, Verdict::Unknown] {
            attempt(&key, verdict).await;
            assert!(!key.is_open());
        }
        attempt(&key, Verdict::Refused).await;
        assert!(key.is_open() && !key.is_usable());
        advance(Duration::from_millis(299_999)).await;
        assert_eq!(try_admit(&key).await.unwrap_err(), Reason::UpstreamCredentials);
        assert!(!key.is_usable());
        advance(Duration::from_millis(1)).await;
        assert!(key.is_usable(), "for the probe");
        let probe = try_admit(&key).await.unwrap();
        assert!(key.is_usable(), "it is not known to be bad");
        assert_eq!(try_admit(&key).await.unwrap_err(), Reason::UpstreamCredentials, "one probe at a time");
        probe.settle(Verdict::Refused);
        assert_eq!(try_admit(&key).await.unwrap_err(), Reason::UpstreamCredentials, "five minutes more");
        assert!(!key.is_usable());
        advance(Duration::from_secs(300)).await;
        drop(try_admit(&key).await.unwrap());
        attempt(&key, Verdict::Accepted).await;
        assert!(!key.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn another_key_closes_it_and_the_old_ones_calls_do_not_count() {
        let key = key_of(Some(credentials()));
        let old = try_admit(&key).await.unwrap();
        attempt(&key, Verdict::Refused).await;
        attempt(&key, Verdict::Refused).await;
        assert!(key.is_open() && !key.is_usable());
        key.replace(Some(Credentials { access_key: "AK2".to_owned(), ..credentials() }));
        assert!(!key.is_open() && key.is_usable());
        old.settle(Verdict::Refused);
        attempt(&key, Verdict::Refused).await;
        assert!(!key.is_open(), "one refusal of its own");
    }

    #[tokio::test(start_paused = true)]
    async fn another_secret_for_the_same_access_key_is_tried_by_one_call_for_scm_counts_on() {
        let key = key_of(Some(credentials()));
        attempt(&key, Verdict::Refused).await;
        attempt(&key, Verdict::Refused).await;
        key.replace(Some(Credentials { secret_key: "SK2".into(), ..credentials() }));
        let first = try_admit(&key).await.unwrap();
        assert_eq!(try_admit(&key).await.unwrap_err(), Reason::Deadline, "one at a time");
        first.settle(Verdict::Refused);
        assert!(key.is_open(), "the third in a row");
        key.replace(Some(Credentials { secret_key: "SK3".into(), ..credentials() }));
        attempt(&key, Verdict::Accepted).await;
        let all = [try_admit(&key).await, try_admit(&key).await, try_admit(&key).await, try_admit(&key).await];
        assert!(all.iter().all(Result::is_ok), "it is good");
    }

    #[tokio::test(start_paused = true)]
    async fn projects_that_share_an_access_key_share_its_refusals() {
        let guards = Arc::<Guards>::default();
        let keys = [(); 3].map(|()| Key::new(Some(credentials()), guards.clone()));
        let mut passes = Vec::new();
        for key in &keys {
            passes.push(try_admit(key).await.unwrap());
        }
        assert_eq!(try_admit(&keys[0]).await.unwrap_err(), Reason::Deadline, "three in flight over all of them");
        passes.into_iter().for_each(|pass| pass.settle(Verdict::Refused));
        assert!(keys.iter().all(Key::is_open));
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_from_before_a_refusal_proves_nothing() {
        let key = key_of(Some(credentials()));
        let early = try_admit(&key).await.unwrap();
        attempt(&key, Verdict::Refused).await;
        attempt(&key, Verdict::Refused).await;
        early.settle(Verdict::Accepted);
        assert!(key.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn in_doubt_one_call_at_a_time_until_one_succeeds() {
        let key = key_of(Some(credentials()));
        attempt(&key, Verdict::Accepted).await;
        key.doubt();
        let first = try_admit(&key).await.unwrap();
        assert_eq!(try_admit(&key).await.unwrap_err(), Reason::Deadline);
        first.settle(Verdict::Accepted);
        let many = [try_admit(&key).await, try_admit(&key).await];
        assert!(many.iter().all(Result::is_ok));
    }

    #[tokio::test(start_paused = true)]
    async fn five_hundred_waiting_calls_never_reach_the_vendors_lock() {
        let key = Arc::new(key_of(Some(credentials())));
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
        let key = key_of(Some(credentials()));
        let first = [try_admit(&key).await.unwrap(), try_admit(&key).await.unwrap(), try_admit(&key).await.unwrap()];
        first.into_iter().for_each(|pass| pass.settle(Verdict::Expired));
        assert!(!key.is_open());
        let corrected = try_admit(&key).await.unwrap();
        assert_eq!(try_admit(&key).await.unwrap_err(), Reason::Deadline, "the others wait for its outcome");
        corrected.settle(Verdict::Refused);
        assert!(key.is_open(), "four refusals in a row, and no fifth");
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_jumps_under_load_opens_nothing() {
        let key = key_of(Some(credentials()));
        attempt(&key, Verdict::Accepted).await;
        let mut passes = Vec::new();
        for _ in 0..100 {
            passes.push(try_admit(&key).await.unwrap());
        }
        passes.into_iter().for_each(|pass| pass.settle(Verdict::Expired));
        assert!(!key.is_open());
        attempt(&key, Verdict::Accepted).await;
        let many = [try_admit(&key).await, try_admit(&key).await];
        assert!(many.iter().all(Result::is_ok));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_key_calls_wait_for_one_and_then_for_their_place() {
        let key = Arc::new(key_of(None));
        assert!(!key.is_usable());
        let error = key.admit(steady()).await.unwrap_err();
        assert_eq!(
            (error.reason, error.cause),
            (Reason::UpstreamCredentials, Some("no credentials")),
            "its time is over"
        );
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
