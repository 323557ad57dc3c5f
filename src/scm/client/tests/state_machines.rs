//! Circuit breaker and throttle as state machines, on a paused clock.

use std::time::Duration;

use proptest::{prelude::*, sample::Index};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use tokio::{
    runtime::Runtime,
    time::{Instant, advance},
};

use super::super::{
    breaker::{Breaker, BreakerPermit},
    throttle::Throttle,
};
use crate::{
    clock::monotonic,
    config,
    error::{Answer, Error, Progress, Reason},
    scm::api::{RestMethod as _, methods::SaveInfo},
};

/// How a call ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Success,
    Unavailable,
    /// With a 429 and this `Retry-After`, in seconds.
    Throttled(Option<u64>),
    Cancelled,
}

impl End {
    fn result(self) -> Option<Result<(), Error>> {
        match self {
            Self::Success => Some(Ok(())),
            Self::Unavailable => Some(Err(Error::new(Reason::UpstreamUnavailable, Progress::NotSent))),
            Self::Throttled(seconds) => {
                let answer = Answer { http_status: 429, ..Answer::default() };
                let retry_after = seconds.map(Duration::from_secs);
                Some(Err(Error { retry_after, ..Error::answered(Reason::UpstreamThrottled, answer) }))
            }
            Self::Cancelled => None,
        }
    }
}

#[derive(Debug, Clone)]
enum Event {
    Call,
    End(Index, End),
    Pause(u64),
}

/// The number of calls in flight is up to the machine, so that no event depends on the state.
struct Reference;

impl ReferenceStateMachine for Reference {
    type State = ();
    type Transition = Event;

    fn init_state() -> BoxedStrategy<()> {
        Just(()).boxed()
    }

    fn transitions((): &()) -> BoxedStrategy<Event> {
        let end = prop_oneof![
            2 => Just(End::Success),
            4 => Just(End::Unavailable),
            2 => prop_oneof![Just(None), (0..70_u64).prop_map(Some)].prop_map(End::Throttled),
            1 => Just(End::Cancelled),
        ];
        prop_oneof![
            4 => Just(Event::Call),
            4 => (any::<Index>(), end).prop_map(|(index, end)| Event::End(index, end)),
            2 => prop_oneof![Just(1), Just(500), Just(1100), Just(4400), Just(60_000)].prop_map(Event::Pause),
        ]
        .boxed()
    }

    fn apply((): (), _: &Event) {}
}

fn paused() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

fn pause(runtime: &Runtime, millis: u64) {
    runtime.block_on(advance(Duration::from_millis(millis)));
}

struct BreakerMachine {
    runtime: Runtime,
    breaker: &'static Breaker,
    in_flight: Vec<(BreakerPermit<'static>, bool)>,
    /// Failures in a row of calls that began while the circuit was closed.
    failures: u32,
    last_probe: Option<Instant>,
}

const MAX_FAILURES: u32 = 3;

impl BreakerMachine {
    fn call(&mut self) {
        let _time = self.runtime.enter();
        let now = monotonic();
        let was_open = self.failures >= MAX_FAILURES;
        match self.breaker.try_acquire(SaveInfo::METHOD, now) {
            Ok(permit) => {
                if was_open {
                    let since = self.last_probe.replace(now).map(|last| now - last);
                    assert!(since.is_none_or(|since| since >= Duration::from_secs(1)), "two probes at a time");
                }
                self.in_flight.push((permit, was_open));
            }
            Err(wait) => {
                assert!(was_open, "rejected by a closed circuit");
                assert!(!wait.is_zero() && wait <= Duration::from_millis(4400), "{wait:?}");
            }
        }
    }

    fn end(&mut self, index: usize, end: End) {
        let _time = self.runtime.enter();
        let (mut permit, is_probe) = self.in_flight.remove(index);
        permit.start_attempt(monotonic(), None);
        if let Some(result) = end.result() {
            permit.end_attempt(&result);
        }
        drop(permit);
        let was_open = self.failures >= MAX_FAILURES;
        match end {
            End::Success | End::Throttled(_) if is_probe == was_open => self.failures = 0,
            End::Unavailable if !is_probe && !was_open => self.failures += 1,
            End::Cancelled if is_probe => self.last_probe = None,
            _ => {}
        }
    }
}

impl StateMachineTest for BreakerMachine {
    type SystemUnderTest = Self;
    type Reference = Reference;

    fn init_test((): &()) -> Self {
        let backoff = Duration::from_secs(1);
        let policy = config::Breaker { max_failures: MAX_FAILURES, backoff, max_backoff: 4 * backoff };
        let breaker = Box::leak(Box::new(Breaker::new("p".to_owned(), policy))); // permits borrow it
        Self { runtime: paused(), breaker, in_flight: Vec::new(), failures: 0, last_probe: None }
    }

    fn apply(mut machine: Self, (): &(), event: Event) -> Self {
        match event {
            Event::Call => machine.call(),
            Event::End(index, end) if !machine.in_flight.is_empty() => {
                machine.end(index.index(machine.in_flight.len()), end);
            }
            Event::End(..) => {}
            Event::Pause(millis) => pause(&machine.runtime, millis),
        }
        machine
    }

    fn teardown(mut machine: Self, (): ()) {
        machine.in_flight.clear();
        pause(&machine.runtime, 4400);
        let _time = machine.runtime.enter();
        let mut probe = machine.breaker.try_acquire(SaveInfo::METHOD, monotonic()).expect("every wait ends");
        probe.start_attempt(monotonic(), None);
        probe.end_attempt(&Ok::<_, Error>(()));
        drop(probe);
        assert!(!machine.breaker.is_open() && machine.breaker.try_acquire(SaveInfo::METHOD, monotonic()).is_ok());
    }
}

struct ThrottleMachine {
    runtime: Runtime,
    throttle: &'static Throttle,
    in_flight: Vec<super::super::throttle::AttemptGuard<'static>>,
    /// No request starts before this time, because of a `Retry-After`.
    not_before: Option<Instant>,
}

impl StateMachineTest for ThrottleMachine {
    type SystemUnderTest = Self;
    type Reference = Reference;

    fn init_test((): &()) -> Self {
        let throttle = Box::leak(Box::<Throttle>::default()); // guards borrow it
        Self { runtime: paused(), throttle, in_flight: Vec::new(), not_before: None }
    }

    fn apply(mut machine: Self, (): &(), event: Event) -> Self {
        let time = machine.runtime.enter();
        let now = monotonic();
        match event {
            Event::Call => match machine.throttle.try_acquire() {
                Ok(()) => {
                    assert!(machine.not_before.is_none_or(|time| now >= time), "a request during Retry-After");
                    machine.in_flight.push(machine.throttle.attempt());
                }
                Err(wait) => assert!(!wait.is_zero() && wait <= Duration::from_secs(60), "{wait:?}"),
            },
            Event::End(index, end) if !machine.in_flight.is_empty() => {
                let guard = machine.in_flight.remove(index.index(machine.in_flight.len()));
                if let Some(result) = end.result() {
                    machine.throttle.record(&result);
                }
                drop(guard);
                if let End::Throttled(Some(seconds)) = end {
                    let until = now + Duration::from_secs(seconds.min(60));
                    machine.not_before = machine.not_before.max(Some(until));
                }
            }
            Event::End(..) => {}
            Event::Pause(millis) => {
                drop(time);
                pause(&machine.runtime, millis);
                return machine;
            }
        }
        drop(time);
        machine
    }

    fn teardown(mut machine: Self, (): ()) {
        machine.in_flight.clear();
        pause(&machine.runtime, 60_000);
        let _time = machine.runtime.enter();
        assert_eq!(machine.throttle.try_acquire(), Ok(()), "every wait ends");
        machine.throttle.record(&Ok(()));
        assert_eq!([machine.throttle.try_acquire(), machine.throttle.try_acquire()], [Ok(()); 2]);
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn a_circuit_opens_after_failures_in_a_row_and_always_closes_again(sequential 1..60 => BreakerMachine);

    #[test]
    fn a_cooldown_lasts_for_retry_after_and_always_ends(sequential 1..60 => ThrottleMachine);
}
