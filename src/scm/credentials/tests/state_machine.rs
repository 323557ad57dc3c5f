//! The credentials of a project as a state machine, against a model of the vendor: whatever the order of calls, responses,
//! losses, changed files and pauses, an accepted access key is never locked, and stays in use.

use std::time::Duration;

use futures_util::FutureExt as _;
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use tokio::{runtime::Runtime, time::advance};

use super::{
    super::{LiveCredentials, SigningPermit},
    AuthOutcome, live,
    vendor::{Pair, Vendor},
};
use crate::{clock::monotonic, error::Reason};

/// What becomes of a request.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// The vendor's verdict arrives.
    Delivered,
    /// The vendor has checked the signature, and the response is lost.
    Lost,
    /// The request is cancelled before it is sent.
    Unsent,
}

#[derive(Debug, Clone)]
enum Event {
    /// A call wants a permit, and signs if it gets one.
    Call,
    /// One of the requests in flight ends.
    End(prop::sample::Index, Fate),
    /// The files change.
    Install(Pair),
    /// The accepted credentials expire.
    Expire,
    /// The clock jumps. Requests are signed with a wrong date until SCM has said so.
    ClockJump,
    Pause(u64),
}

/// What the files hold.
#[derive(Debug, Clone)]
struct Files(Pair);

struct Reference;

impl ReferenceStateMachine for Reference {
    type State = Files;
    type Transition = Event;

    fn init_state() -> BoxedStrategy<Files> {
        Just(Files(Pair(1, 1))).boxed()
    }

    fn transitions(_: &Files) -> BoxedStrategy<Event> {
        let fate = prop_oneof![
            4 => Just(Fate::Delivered),
            1 => Just(Fate::Lost),
            1 => Just(Fate::Unsent),
        ];
        prop_oneof![
            5 => Just(Event::Call),
            5 => (any::<prop::sample::Index>(), fate).prop_map(|(index, fate)| Event::End(index, fate)),
            2 => (1..=2_u8, 1..=4_u8).prop_map(|(access_key, secret_key)| Event::Install(Pair(access_key, secret_key))),
            1 => Just(Event::Expire),
            1 => Just(Event::ClockJump),
            1 => prop_oneof![Just(1), Just(299), Just(300)].prop_map(Event::Pause),
        ]
        .boxed()
    }

    fn apply(files: Files, event: &Event) -> Files {
        match event {
            Event::Install(pair) => Files(*pair),
            _ => files,
        }
    }
}

struct Gateway {
    runtime: Runtime,
    vendor: Vendor,
    live: LiveCredentials,
    in_flight: Vec<Request>,
    clock_is_wrong: bool,
    jumps: u32,
    /// Whether SCM has accepted a signature from after the last clock jump. Two rejections in a row suspend, whatever their
    /// cause.
    clock_is_settled: bool,
}

struct Request {
    permit: SigningPermit,
    date_is_wrong: bool,
    /// The number of clock jumps before it was signed.
    jumps: u32,
}

impl Gateway {
    /// Asks for a permit. Returns whether there was one.
    fn call(&mut self) -> Result<bool, Reason> {
        let _time = self.runtime.enter();
        let permit = self.live.try_acquire(monotonic()).map_err(|error| error.reason)?;
        let granted = permit.is_some();
        let (date_is_wrong, jumps) = (self.clock_is_wrong, self.jumps);
        self.in_flight.extend(permit.map(|permit| Request { permit, date_is_wrong, jumps }));
        Ok(granted)
    }

    fn end(&mut self, index: usize, fate: Fate) {
        let _time = self.runtime.enter();
        let Request { permit, date_is_wrong, jumps } = self.in_flight.remove(index);
        let outcome = match fate {
            Fate::Unsent => AuthOutcome::Unknown,
            Fate::Delivered | Fate::Lost if date_is_wrong => {
                self.vendor.reject(permit.credentials(), monotonic());
                self.clock_is_wrong = false;
                AuthOutcome::ClockSkewed
            }
            Fate::Delivered => self.vendor.check(permit.credentials(), monotonic()),
            Fate::Lost => {
                self.vendor.check(permit.credentials(), monotonic());
                AuthOutcome::Unknown
            }
        };
        let version = permit.version.clone();
        let is_trial = permit.is_trial();
        permit.record(outcome);
        if is_trial && outcome == AuthOutcome::Rejected {
            let accepted = self.live.permit_of_accepted(monotonic()).now_or_never().flatten();
            self.in_flight.extend(accepted.map(|permit| Request {
                permit,
                date_is_wrong: self.clock_is_wrong,
                jumps: self.jumps,
            }));
        }
        let current = self.live.lock().current.clone();
        let is_current = current.is_some_and(|current| current.loaded.credentials == version.loaded.credentials);
        self.clock_is_settled |= outcome == AuthOutcome::Accepted && jumps == self.jumps && is_current;
    }

    fn expire(&mut self) {
        let _time = self.runtime.enter();
        let current = self.live.lock().current.clone();
        if let Some(current) = current {
            self.live.remove(&current.loaded.credentials);
        }
    }

    fn jump(&mut self) {
        if std::mem::take(&mut self.clock_is_settled) {
            self.clock_is_wrong = true;
            self.jumps += 1;
            self.live.reverify();
        }
    }

    fn pause(&self, seconds: u64) {
        self.runtime.block_on(advance(Duration::from_secs(seconds)));
    }

    fn check(&mut self) {
        let _time = self.runtime.enter();
        let trials = self.in_flight.iter().filter(|request| request.permit.is_trial());
        let access_keys: Vec<_> = trials.map(|request| &request.permit.credentials().access_key).collect();
        assert!(
            access_keys.len() < 2 || access_keys.len() == 2 && access_keys[0] != access_keys[1],
            "two trials of an access key"
        );
        let current = self.live.lock().current.clone();
        if let Some(current) = current {
            let access_key = &current.loaded.credentials.access_key;
            assert!(!self.vendor.is_locked(access_key, monotonic()), "an accepted access key is locked");
            assert!(self.live.is_usable() && !self.live.is_suspended(), "accepted credentials are not usable");
        }
    }

    /// Lets SCM answer everything, with valid credentials in the files.
    fn recover(&mut self) {
        while !self.in_flight.is_empty() {
            self.end(0, Fate::Delivered);
        }
        self.live.install(Pair(1, 1).credentials(), None);
        for _ in 0..20 {
            if self.call() == Ok(true) {
                self.end(0, Fate::Delivered);
            }
            self.pause(60);
        }
        let granted: Vec<_> = (0..9).map(|_| self.call()).collect();
        assert_eq!(granted, [Ok(true); 9], "valid credentials are in use again, and no permit has leaked");
        let signers: Vec<_> =
            self.in_flight.iter().map(|request| request.permit.credentials().access_key.as_str()).collect();
        assert_eq!(signers, ["AK1"; 9]);
    }
}

impl StateMachineTest for Gateway {
    type SystemUnderTest = Self;
    type Reference = Reference;

    fn init_test(files: &Files) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let live = live(Some(files.0.credentials()));
        Self {
            runtime,
            vendor: Vendor::default(),
            live,
            in_flight: Vec::new(),
            clock_is_wrong: false,
            jumps: 0,
            clock_is_settled: false,
        }
    }

    fn apply(mut gateway: Self, _: &Files, event: Event) -> Self {
        match event {
            Event::Call => drop(gateway.call()),
            Event::End(_, _) if gateway.in_flight.is_empty() => {}
            Event::End(index, fate) => gateway.end(index.index(gateway.in_flight.len()), fate),
            Event::Install(pair) => gateway.live.install(pair.credentials(), None),
            Event::Expire => gateway.expire(),
            Event::ClockJump => gateway.jump(),
            Event::Pause(seconds) => gateway.pause(seconds),
        }
        gateway.check();
        gateway
    }

    fn teardown(mut gateway: Self, _: Files) {
        gateway.recover();
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn accepted_credentials_stay_in_use_and_are_never_locked(sequential 1..60 => Gateway);
}
