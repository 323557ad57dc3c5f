//! The interleavings of calls, responses, cancellations and changed files, explored by shuttle: no wake-up is lost, no
//! permit leaks, and SCM never counts more than five rejections in a row.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use shuttle::{
    future::block_on,
    rand::{Rng as _, thread_rng},
    thread,
};
use tokio::time::Instant;

use super::{
    super::{Admit, LiveCredentials, LockoutGuards, SigningPermit},
    AuthOutcome, Reason, live,
    vendor::{Pair, Vendor},
};
use crate::clock::monotonic;

/// The gateway's credentials and the vendor, shared by the threads of one execution.
#[derive(Clone)]
struct World {
    live: LiveCredentials,
    vendor: Arc<Mutex<Vendor>>,
    deadline: Instant,
}

impl World {
    fn new(live: LiveCredentials) -> Self {
        Self { live, vendor: Arc::default(), deadline: monotonic() + Duration::from_secs(3600) }
    }

    /// Sends the request, and returns what the vendor says about the signature.
    fn finish(&self, permit: SigningPermit) -> AuthOutcome {
        thread::yield_now();
        let verdict = self.vendor.lock().unwrap().check(permit.credentials(), monotonic());
        thread::yield_now();
        permit.record(verdict);
        verdict
    }

    /// Makes a call, which sometimes is cancelled before it is sent. A rejected trial is signed again.
    fn call(&self) -> Result<AuthOutcome, Reason> {
        let permit = block_on(self.live.acquire(self.deadline)).map_err(|error| error.reason)?;
        if thread_rng().gen_bool(0.2) {
            drop(permit);
            return Ok(AuthOutcome::Unknown);
        }
        let is_trial = permit.is_trial();
        let outcome = self.finish(permit);
        let is_rejected_trial = is_trial && outcome == AuthOutcome::Rejected;
        let accepted = match is_rejected_trial.then(|| self.live.try_acquire_accepted(self.deadline)).flatten() {
            Some(Admit::Granted(permit)) => Some(permit),
            Some(Admit::Wait) => block_on(self.live.acquire(self.deadline)).ok(),
            Some(Admit::Suspended(_)) | None => None,
        };
        Ok(accepted.map_or(outcome, |permit| self.finish(permit)))
    }

    /// Runs so many calls in each of some threads, and `change` in another one. Returns what became of the calls.
    fn run(
        &self,
        threads: usize,
        calls: usize,
        change: impl Fn(&Self) + Send + 'static,
    ) -> Vec<Result<AuthOutcome, Reason>> {
        let running: Vec<_> = (0..threads)
            .map(|_| {
                let world = self.clone();
                thread::spawn(move || (0..calls).map(|_| world.call()).collect::<Vec<_>>())
            })
            .collect();
        let world = self.clone();
        let changing = thread::spawn(move || change(&world));
        let results = running.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        changing.join().unwrap();
        results
    }

    /// Asserts that valid credentials are in use, with any number of requests in flight.
    fn assert_verified(&self, access_key: &str) {
        for _ in 0..2 {
            let permit = block_on(self.live.acquire(self.deadline)).unwrap();
            assert_eq!(self.finish(permit), AuthOutcome::Accepted);
        }
        let permits: Vec<_> = (0..3).map(|_| self.live.try_acquire(self.deadline).unwrap().unwrap()).collect();
        assert!(permits.iter().all(|permit| permit.credentials().access_key == access_key));
    }

    fn rejections(&self) -> u32 {
        self.vendor.lock().unwrap().rejections()
    }
}

fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    shuttle::check_random(scenario, 3000);
}

fn accepted() -> World {
    let world = World::new(live(Some(Pair(1, 1).credentials())));
    let permit = block_on(world.live.acquire(world.deadline)).unwrap();
    assert_eq!(world.finish(permit), AuthOutcome::Accepted);
    world
}

#[test]
fn waiting_calls_are_woken_once_credentials_are_installed_and_accepted() {
    explore(|| {
        let world = World::new(live(None));
        let results = world.run(3, 2, |world| world.live.install(Pair(1, 1).credentials(), None));
        assert!(results.iter().all(|result| matches!(result, Ok(AuthOutcome::Accepted | AuthOutcome::Unknown))));
        world.assert_verified("AK1");
    });
}

#[test]
fn a_wrong_key_at_the_start_is_rejected_twice() {
    explore(|| {
        let world = World::new(live(Some(Pair(1, 2).credentials())));
        let results = world.run(4, 3, |_| {});
        let rejected = results.iter().filter(|result| **result == Ok(AuthOutcome::Rejected)).count();
        assert!(rejected <= 2 && world.rejections() as usize == rejected, "{results:?}");
    });
}

#[test]
fn new_credentials_replace_accepted_ones_without_a_failed_call() {
    explore(|| {
        let world = accepted();
        let results = world.run(3, 3, |world| world.live.install(Pair(2, 2).credentials(), None));
        assert!(results.iter().all(|result| matches!(result, Ok(AuthOutcome::Accepted | AuthOutcome::Unknown))));
        world.assert_verified("AK2");
    });
}

#[test]
fn wrong_new_credentials_fail_no_call() {
    for wrong in [Pair(1, 2), Pair(2, 1)] {
        explore(move || {
            let world = accepted();
            let results = world.run(3, 3, move |world| world.live.install(wrong.credentials(), None));
            let is_fine = |result: &_| matches!(result, Ok(AuthOutcome::Accepted | AuthOutcome::Unknown));
            assert!(results.iter().all(is_fine) && world.rejections() <= 1, "{results:?}");
            world.live.install(Pair(1, 1).credentials(), None);
            world.assert_verified("AK1");
        });
    }
}

#[test]
fn changes_during_a_trial_lose_no_permit() {
    explore(|| {
        let world = accepted();
        let results = world.run(3, 3, |world| {
            for pair in [Pair(1, 2), Pair(2, 1), Pair(2, 2), Pair(1, 3), Pair(2, 2)] {
                world.live.install(pair.credentials(), None);
                thread::yield_now();
            }
        });
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        world.assert_verified("AK2");
    });
}

#[test]
fn projects_share_the_trust_in_their_access_key() {
    explore(|| {
        let guards = Arc::<LockoutGuards>::default();
        let [first, second] = ["first", "second"]
            .map(|project| LiveCredentials::new(project.into(), Some(Pair(1, 2).credentials()), guards.clone()));
        let first = World::new(first);
        let second = World { live: second, ..first.clone() };
        let other = second.clone();
        let thread = thread::spawn(move || other.run(2, 2, |_| {}));
        first.run(2, 2, |_| {});
        thread.join().unwrap();
        assert!(first.rejections() <= 2, "one rejection count for both");
        for world in [&first, &second] {
            world.live.install(Pair(1, 1).credentials(), None);
            world.assert_verified("AK1");
        }
    });
}
