//! The interleavings of calls, explored by shuttle: one probe at a time, and no state in which all calls are rejected.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use shuttle::thread;

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

const MINUTE: Duration = Duration::from_secs(60);

fn breaker(max_failures: u32) -> Arc<Breaker> {
    let policy = config::Breaker { max_failures, backoff: Duration::from_secs(1), max_backoff: Duration::from_secs(4) };
    Arc::new(Breaker::new("p".to_owned(), policy))
}

fn unavailable() -> Error {
    Error::new(Reason::UpstreamUnavailable, Progress::NotSent)
}

fn end(mut permit: BreakerPermit<'_>, result: Result<(), Error>) {
    permit.start_attempt(monotonic(), None);
    permit.end_attempt(&result);
}

/// Runs `work` in so many threads.
fn threads(count: usize, work: impl Fn(usize) + Clone + Send + 'static) {
    let threads: Vec<_> = (0..count)
        .map(|number| {
            let work = work.clone();
            thread::spawn(move || work(number))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn one_of_several_calls_probes_an_open_circuit() {
    shuttle::check_dfs(
        || {
            let breaker = breaker(1);
            end(breaker.try_acquire(SaveInfo::METHOD, monotonic()).unwrap(), Err(unavailable()));
            let later = monotonic() + MINUTE;
            let probes = Arc::new(AtomicUsize::new(0));
            let shared = breaker.clone();
            threads(2, move |_| {
                if let Ok(permit) = shared.try_acquire(SaveInfo::METHOD, later) {
                    assert_eq!(probes.fetch_add(1, SeqCst), 0, "one probe at a time");
                    thread::yield_now();
                    probes.fetch_sub(1, SeqCst);
                    end(permit, Err(unavailable()));
                }
            });
            let after = breaker
                .try_acquire(SaveInfo::METHOD, later + MINUTE)
                .expect("a call is admitted once the backoff is over");
            end(after, Ok(()));
            assert!(!breaker.is_open());
        },
        None,
    );
}

#[test]
fn failures_in_flight_together_open_the_circuit_once() {
    shuttle::check_random(
        || {
            let breaker = breaker(3);
            let shared = breaker.clone();
            threads(4, move |_| {
                if let Ok(permit) = shared.try_acquire(SaveInfo::METHOD, monotonic()) {
                    end(permit, Err(unavailable()));
                }
            });
            let wait = breaker.try_acquire(SaveInfo::METHOD, monotonic()).expect_err("the circuit is open");
            assert!(wait <= Duration::from_millis(1100), "{wait:?}");
            end(breaker.try_acquire(SaveInfo::METHOD, monotonic() + MINUTE).unwrap(), Ok(()));
            assert!(!breaker.is_open());
        },
        3000,
    );
}

#[test]
fn one_of_several_calls_probes_after_a_cooldown() {
    shuttle::check_dfs(
        || {
            let throttle = Arc::new(Throttle::default());
            let throttled: Result<(), _> = Err(Error {
                retry_after: Some(Duration::ZERO),
                ..Error::answered(Reason::UpstreamThrottled, Answer { http_status: 429, ..Answer::default() })
            });
            throttle.record(&throttled);
            let sent = Arc::new(AtomicUsize::new(0));
            let shared = (throttle.clone(), sent.clone());
            threads(3, move |_| {
                let (throttle, sent) = &shared;
                if throttle.try_acquire().is_ok() {
                    sent.fetch_add(1, SeqCst);
                }
            });
            assert_eq!(sent.load(SeqCst), 1, "one probe at a time");
            drop(throttle.attempt());
            assert!(throttle.try_acquire().is_ok(), "a cancelled probe is followed by another");
            throttle.record(&Ok(()));
            assert!(throttle.try_acquire().is_ok() && throttle.try_acquire().is_ok());
        },
        None,
    );
}
