//! The load of the soak: closed-loop callers at half of an instance's capacity, and open-loop callers with deadlines.
//! Each call is checked against the fault that it meets.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::future::join_all;
use scm_emulator::{Emulator, SAMPLE_PROJECT, Step, Tls};
use tokio::{
    sync::{RwLock, RwLockWriteGuard},
    task::JoinSet,
    time::{Instant, interval, sleep},
};
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::{
    client::{Call, Client, Method},
    faults::{self, Fault, Outcome},
    harness::seen,
    implied::{Implied, LOST, UNTRUSTED},
};

/// The capacity of one instance, which has all calls while the other one restarts.
pub const MAX_IN_FLIGHT: usize = 64;

/// The closed-loop callers. The other half of the capacity is for open-loop calls: they pile up if the request that
/// verifies the key of a new instance hangs.
const CALLERS: usize = MAX_IN_FLIGHT / 2;

/// The open-loop callers start 20 calls a second.
const CALL_INTERVAL: Duration = Duration::from_millis(50);
const DEADLINE: Duration = Duration::from_secs(3);

/// The deadline of an open-loop call without a response: shorter than `upstream.attempt_timeout`.
const SHORT_DEADLINE: Duration = Duration::from_millis(500);

/// Each call has a certificate of its own while it runs.
const CERTIFICATES: usize = 4 * MAX_IN_FLIGHT;

/// Two calls of these are faulty: one SaveInfo and one ReadInfo.
const PERIOD: usize = 200;

/// The calls of a minute.
#[derive(Default)]
pub struct Tally {
    pub latencies: Vec<Duration>,
    /// The calls that met a fault.
    pub faults: usize,
    /// The failed calls that a fault implies, by reason.
    pub failures: BTreeMap<String, usize>,
    /// The calls that ended otherwise than their fault implies.
    pub unexpected: Vec<String>,
}

/// A kind of callers.
struct Caller {
    deadline: Option<Duration>,
    saves: Faults,
    reads: Faults,
}

impl Caller {
    /// Creates callers whose calls have this deadline, and this outcome if SCM does not respond.
    fn new(deadline: Option<Duration>, hang: Outcome) -> Self {
        Self { deadline, saves: Faults::new(faults::all(hang)), reads: Faults::new(faults::of_any_method(hang)) }
    }
}

/// Faults in turn.
struct Faults(Vec<Fault>, AtomicUsize);

impl Faults {
    fn new(faults: Vec<Fault>) -> Self {
        Self(faults, AtomicUsize::new(0))
    }

    fn next(&self) -> Fault {
        self.0[self.1.fetch_add(1, Relaxed) % self.0.len()].clone()
    }
}

struct State {
    emulator: Arc<Emulator>,
    clients: Mutex<Vec<Client>>,
    closed: Caller,
    open: Caller,
    /// The certificates without a call.
    cert_ids: Mutex<VecDeque<String>>,
    next: AtomicUsize,
    tally: Mutex<Tally>,
    implied: Implied,
    /// The requests with a new key that SCM is expected to reject.
    expected_rejections: AtomicUsize,
    /// Held for writing while a scripted 401 could be taken for the response to a new key.
    rejections: RwLock<()>,
    done: AtomicBool,
}

/// Calls that run until the soak ends.
pub struct Load(Arc<State>, JoinSet<()>);

impl Load {
    /// Saves all certificates once, and starts the calls.
    pub async fn start(emulator: Arc<Emulator>, clients: Vec<Client>) -> Self {
        let state = Arc::new(State {
            emulator,
            clients: Mutex::new(clients),
            closed: Caller::new(None, faults::RETRIED),
            open: Caller::new(Some(DEADLINE), faults::TIMED_OUT),
            cert_ids: Mutex::default(),
            next: AtomicUsize::new(1),
            tally: Mutex::default(),
            implied: Implied::default(),
            expected_rejections: AtomicUsize::default(),
            rejections: RwLock::default(),
            done: AtomicBool::new(false),
        });
        let first = async |nth| {
            let call = Call { method: Method::Save, cert_id: format!("scs{nth:013}"), unit: "first".to_owned() };
            call.send(|| state.client(), None).await.unwrap();
            state.cert_ids.lock().unwrap().push_back(call.cert_id);
        };
        for start in (0..CERTIFICATES).step_by(CALLERS) {
            join_all((start..start + CALLERS).map(first)).await;
        }
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            callers.spawn(state.clone().closed_loop());
        }
        callers.spawn(state.clone().open_loop());
        Self(state, callers)
    }

    /// Stops the calls, and waits for those in flight.
    pub async fn stop(&mut self) {
        self.0.done.store(true, Relaxed);
        while let Some(caller) = self.1.join_next().await {
            caller.unwrap();
        }
    }

    pub fn take_tally(&self) -> Tally {
        std::mem::take(&mut *self.0.tally.lock().unwrap())
    }

    /// Replaces the clients of all further calls.
    pub fn set_clients(&self, clients: Vec<Client>) {
        *self.0.clients.lock().unwrap() = clients;
    }

    /// Waits for the calls with a scripted 401, and prevents further ones while the guard exists.
    pub async fn without_rejections(&self) -> RwLockWriteGuard<'_, ()> {
        self.0.rejections.write().await
    }

    /// Expects SCM to reject this number of requests with a new key.
    pub fn expect_rejections(&self, requests: usize) {
        self.0.expected_rejections.fetch_add(requests, Relaxed);
    }

    /// Gives the next connection to SCM a certificate that the gateway does not trust.
    pub fn fail_a_handshake(&self) {
        self.0.implied.expect(UNTRUSTED, 1);
        self.0.emulator.script_tls(Tls::generate());
    }

    /// Returns how many requests with a new key SCM is expected to have rejected.
    pub fn expected_rejections(&self) -> usize {
        self.0.expected_rejections.load(Relaxed)
    }
}

impl State {
    async fn closed_loop(self: Arc<Self>) {
        while !self.done.load(Relaxed) {
            if let Some(delay) = self.call(&self.closed).await {
                sleep(delay).await;
            }
        }
    }

    async fn open_loop(self: Arc<Self>) {
        let mut calls = JoinSet::new();
        let mut tick = interval(CALL_INTERVAL);
        while !self.done.load(Relaxed) {
            tick.tick().await;
            let state = self.clone();
            calls.spawn(async move { state.call(&state.open).await });
            while calls.try_join_next().is_some() {}
        }
        calls.join_all().await;
    }

    /// Makes a call, and returns the delay in its RetryInfo, if any.
    async fn call(&self, caller: &Caller) -> Option<Duration> {
        let nth = self.next.fetch_add(1, Relaxed);
        let (method, faults) =
            if nth.is_multiple_of(2) { (Method::Save, &caller.saves) } else { (Method::Read, &caller.reads) };
        let mut fault = [0, PERIOD / 2 + 1].contains(&(nth % PERIOD)).then(|| faults.next());
        let is_rejection = fault.as_ref().is_some_and(|fault| fault.outcome == faults::REJECTED);
        let rejection = is_rejection.then(|| self.rejections.try_read());
        fault.take_if(|_| matches!(rejection, Some(Err(_))));
        let cert_id = self.cert_ids.lock().unwrap().pop_front().expect("fewer calls in flight than certificates");
        let call = Call { method, cert_id, unit: format!("unit {nth}") };
        let result = self.call_with_fault(&call, caller.deadline, fault.as_ref()).await;
        self.cert_ids.lock().unwrap().push_back(call.cert_id);
        result.err()?.get_error_details().retry_info()?.retry_delay
    }

    /// Makes a call whose first request meets a fault, and checks its outcome.
    async fn call_with_fault(
        &self,
        call: &Call,
        deadline: Option<Duration>,
        fault: Option<&Fault>,
    ) -> Result<String, Status> {
        let deadline = deadline.map(|deadline| match fault {
            Some(fault) if fault.outcome == faults::TIMED_OUT => SHORT_DEADLINE,
            _ => deadline,
        });
        self.script(&call.cert_id, fault);
        let start = Instant::now();
        let result = call.send(|| self.client(), deadline).await;
        let latency = start.elapsed();
        let is_unmet = self.emulator.take_unused(&call.cert_id).is_some();
        let met = fault.filter(|_| !is_unmet);
        if met.is_some_and(|fault| fault.outcome == faults::THROTTLED) {
            self.implied.throttled();
        }
        self.check(call, &result, met, latency);
        result
    }

    fn script(&self, cert_id: &str, fault: Option<&Fault>) {
        let Some(fault) = fault else { return };
        if fault.outcome == faults::THROTTLED {
            self.implied.throttled();
        }
        match &fault.step {
            // It is not bound to a certificate, so any call may meet it.
            step @ Step::CloseUnread => {
                self.implied.expect(LOST, 1);
                self.emulator.script(step.clone());
            }
            step => self.emulator.script_for(cert_id, step.clone()),
        }
    }

    /// Counts a call, and checks it against the outcome that its fault implies.
    fn check(&self, call: &Call, result: &Result<String, Status>, met: Option<&Fault>, latency: Duration) {
        let outcome = met.and_then(|fault| fault.outcome);
        let verdict = match (result, outcome) {
            (Ok(unit), None) if self.is_saved(call, unit) || met.is_some_and(|fault| fault.is_success) => Ok(None),
            (Ok(_), _) => Err("success".to_owned()),
            (Err(status), _) if status.get_error_details().error_info().is_none() => Err(format!("{status:?}")),
            (Err(status), _) => {
                let seen = seen(status);
                let is_outcome = outcome == Some((seen.code, seen.reason.as_str()));
                let is_sent = seen.metadata.contains_key("attempts");
                match is_outcome || self.implied.accepts(&seen, met.is_some()) {
                    true if is_sent => Ok(Some(seen.reason)),
                    true => Ok(Some(format!("{} before an attempt", seen.reason))),
                    false => Err(format!("{seen:?}")),
                }
            }
        };
        let mut tally = self.tally.lock().unwrap();
        tally.latencies.push(latency);
        tally.faults += usize::from(met.is_some());
        match verdict {
            Ok(failure) => failure.into_iter().for_each(|reason| *tally.failures.entry(reason).or_default() += 1),
            Err(seen) => tally.unexpected.push(format!("{seen} instead of {outcome:?} after {latency:?}")),
        }
    }

    /// Returns whether SCM has what the call has saved or read.
    fn is_saved(&self, call: &Call, unit: &str) -> bool {
        let draft = self.emulator.saved(SAMPLE_PROJECT, &call.cert_id);
        draft.is_some_and(|draft| draft["company_unit"] == unit)
    }

    fn client(&self) -> Client {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let clients = self.clients.lock().unwrap();
        clients[NEXT.fetch_add(1, Relaxed) % clients.len()].clone()
    }
}
