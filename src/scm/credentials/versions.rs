//! Make before break: a project's current credentials, and pending ones that SCM has not accepted yet.
//!
//! One call at a time tries the pending credentials. All others use the current ones until SCM accepts the pending ones.

use std::sync::Arc;

use tokio::{sync::futures::Notified, time::Instant};

use super::lease::Lease;
use super::lockout::{Admit, AuthOutcome, Grant, LockoutGuard, MAX_REJECTIONS, SUSPENSION};
use crate::{
    clock::Moment,
    config::secret::Credentials,
    ops::status::{Circuit, CircuitState, CredentialsVersion, Trust},
};

/// Credentials and the guard of their access key.
#[derive(Debug, Clone)]
pub(super) struct Version {
    pub(super) loaded: Arc<Loaded>,
    pub(super) guard: Arc<LockoutGuard>,
}

/// Credentials as they were loaded.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) credentials: Credentials,
    pub(super) at: Instant,
    /// Set for temporary credentials.
    pub(super) lease: Option<Arc<Lease>>,
}

impl Version {
    /// Returns the state for the status page, with this trust in the credentials.
    fn status(&self, (trust, until): (Trust, Option<Instant>), moment: &Moment) -> CredentialsVersion {
        CredentialsVersion {
            loaded_at: moment.wall_time(self.loaded.at).into(),
            age_seconds: moment.monotonic.saturating_duration_since(self.loaded.at).as_secs(),
            expires_at: self.loaded.lease.as_ref().map(|lease| lease.expires_at().into()),
            trust,
            suspended_until: until.map(|until| moment.wall_time(until).into()),
            last_rejected_at: self.guard.rejected_at().map(|at| moment.wall_time(at).into()),
        }
    }

    /// Returns a future that resolves once a permit of the access key is released.
    pub(super) fn released(&self) -> Notified<'_> {
        self.guard.released.notified()
    }
}

/// The credentials of a project. There are none before the first temporary credentials, and after their expiry.
#[derive(Debug, Default)]
pub(super) struct Versions {
    /// SCM has accepted these.
    pub(super) current: Option<Version>,
    /// SCM has not accepted these yet.
    pub(super) pending: Option<Pending>,
}

/// Credentials that SCM has not accepted yet.
#[derive(Debug)]
pub(super) struct Pending {
    version: Version,
    rejections: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// The next call tries the credentials.
    Untried,
    /// A call is trying the credentials.
    InTrial,
    /// SCM has rejected the credentials. They are tried again after this time.
    RejectedUntil(Instant),
}

/// A permit to sign with one version.
#[derive(Debug)]
pub(super) struct Permit {
    pub(super) version: Version,
    pub(super) grant: Grant,
    pub(super) is_trial: bool,
}

/// How a trial ended that decided something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TrialEnd {
    /// The pending credentials are the current ones.
    Accepted,
    /// The current credentials stay in use.
    Rejected,
}

impl Versions {
    /// Returns the current and the pending credentials.
    pub(super) fn both(&self) -> [Option<Version>; 2] {
        [self.current.clone(), self.pending.as_ref().map(|pending| pending.version.clone())]
    }

    /// Returns whether there are no credentials.
    pub(super) fn is_empty(&self) -> bool {
        self.current.is_none() && self.pending.is_none()
    }

    /// Returns a permit: for the trial of the pending credentials if none is in flight, otherwise for the current ones.
    pub(super) fn try_acquire(&mut self, now: Instant) -> Admit<Permit> {
        let current = self.current.as_ref();
        let trial = self.pending.as_mut().filter(|pending| pending.may_be_tried_beside(current));
        let trial = trial.map(|pending| pending.try_acquire(now));
        let (trial, current) = match (trial, current) {
            (Some(trial @ Admit::Granted(_)), _) | (Some(trial), None) => return trial,
            (None, None) => return Admit::Wait,
            (trial, Some(current)) => (trial, current),
        };
        match (current.guard.try_acquire(now), trial) {
            (Admit::Granted(grant), _) => Admit::Granted(Permit { version: current.clone(), grant, is_trial: false }),
            (Admit::Suspended(_), Some(Admit::Wait)) | (Admit::Wait, _) => Admit::Wait,
            (Admit::Suspended(wait), Some(Admit::Suspended(other))) => Admit::Suspended(wait.min(other)),
            (Admit::Suspended(wait), _) => Admit::Suspended(wait),
        }
    }

    /// Returns a permit for the current credentials, or that none is free. `None` if SCM has not accepted their last
    /// signature.
    pub(super) fn try_acquire_accepted(&self, now: Instant) -> Option<(Version, Admit<Grant>)> {
        let current = self.current.as_ref().filter(|current| current.guard.is_accepted())?;
        Some((current.clone(), current.guard.try_acquire(now)))
    }

    /// Returns the pending credentials if they still are these.
    fn pending_of(&mut self, loaded: &Arc<Loaded>) -> Option<&mut Pending> {
        self.pending.as_mut().filter(|pending| Arc::ptr_eq(&pending.version.loaded, loaded))
    }

    /// Makes new credentials the pending ones. The current ones are kept only if SCM has accepted their last signature.
    pub(super) fn install(&mut self, version: Version) {
        self.current.take_if(|current| !current.guard.is_accepted());
        if self.current.as_ref().is_some_and(|current| current.loaded.credentials == version.loaded.credentials) {
            self.pending = None; // rolled back
            return;
        }
        version.guard.lift_suspension();
        self.pending = Some(Pending { version, rejections: 0, state: State::Untried });
    }

    /// Removes these credentials. Returns whether only ones that SCM has rejected are left in place of them.
    pub(super) fn remove(&mut self, credentials: &Credentials) -> bool {
        let removed = self.current.take_if(|current| current.loaded.credentials == *credentials);
        self.pending.take_if(|pending| pending.version.loaded.credentials == *credentials);
        match &mut self.pending {
            Some(pending) if removed.is_some() => {
                pending.end_backoff_beside_accepted();
                pending.rejections > 0
            }
            _ => false,
        }
    }

    /// Returns whether SCM has rejected the pending credentials, so that the current ones stay in use. `None` without
    /// pending credentials.
    pub(super) fn is_pending_rejected(&self) -> Option<bool> {
        self.pending.as_ref().map(|pending| pending.rejections > 0 && self.current.is_some())
    }

    /// Records the outcome of a trial. Credentials that are no longer the pending ones are ignored.
    pub(super) fn end_trial(&mut self, loaded: &Arc<Loaded>, outcome: AuthOutcome, now: Instant) -> Option<TrialEnd> {
        let replaces_others = self.current.is_some();
        let pending = self.pending_of(loaded)?;
        match outcome {
            AuthOutcome::Accepted => {
                self.current = Some(pending.version.clone());
                self.pending = None;
                Some(TrialEnd::Accepted)
            }
            AuthOutcome::Rejected => {
                pending.rejections += 1;
                let is_final = replaces_others || pending.rejections >= MAX_REJECTIONS;
                pending.state = if is_final { State::RejectedUntil(now + SUSPENSION) } else { State::Untried };
                replaces_others.then_some(TrialEnd::Rejected)
            }
            AuthOutcome::ClockSkewed | AuthOutcome::Unknown => {
                pending.state = State::Untried;
                None
            }
        }
    }

    /// Returns whether calls are rejected.
    pub(super) fn is_suspended(&self, now: Instant) -> bool {
        self.circuit_state(now).0.rejects_calls()
    }

    /// Returns when the credentials were loaded that calls are signed with.
    pub(super) fn loaded_at(&self) -> Option<Instant> {
        self.current.as_ref().or(self.pending.as_ref().map(|pending| &pending.version)).map(|version| version.loaded.at)
    }

    /// Returns the state of the current and the pending credentials for the status page.
    pub(super) fn status(&self, moment: &Moment) -> (Option<CredentialsVersion>, Option<CredentialsVersion>) {
        let now = moment.monotonic;
        let current = self.current.as_ref().map(|current| current.status(current.guard.trust(now), moment));
        let pending = self.pending.as_ref().map(|pending| pending.version.status(pending.trust(now), moment));
        (current, pending)
    }

    /// Returns the state of the circuit that opens when SCM rejects all credentials.
    pub(super) fn circuit(&self, moment: &Moment) -> Circuit {
        let (state, until) = self.circuit_state(moment.monotonic);
        let versions = self.current.iter().chain(self.pending.as_ref().map(|pending| &pending.version));
        // Pending credentials may be suspended by themselves, after rejected trials.
        let since = versions.filter_map(|version| version.guard.suspended_since().or(version.guard.rejected_at()));
        Circuit::new(state, since.max(), until, moment)
    }

    /// Returns the state of that circuit at this time, and until when calls are rejected, if that is known: the state of
    /// those credentials that are closest to signing a call.
    fn circuit_state(&self, now: Instant) -> (CircuitState, Option<Instant>) {
        let current = self.current.as_ref().map(|current| current.guard.trust(now));
        let pending = self.pending.as_ref().map(|pending| pending.trust(now));
        let state = |(trust, until)| match trust {
            Trust::Unverified | Trust::Verified | Trust::Suspect => (CircuitState::Closed, None),
            Trust::ProbeDue => (CircuitState::ProbeDue, None),
            Trust::Probing => (CircuitState::HalfOpen, None),
            Trust::Suspended => (CircuitState::Open, until),
        };
        [current, pending].into_iter().flatten().map(state).min().unwrap_or((CircuitState::Closed, None))
    }

    /// Returns whether the next call is sent.
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        self.current.as_ref().is_some_and(|current| current.guard.is_usable(now))
            || self.pending.as_ref().is_some_and(|pending| pending.is_usable(now))
    }
}

impl Pending {
    /// Returns whether a trial may start now, with regard to the current credentials that a call can use instead.
    fn may_be_tried_beside(&self, current: Option<&Version>) -> bool {
        let same_key = current.filter(|current| Arc::ptr_eq(&current.guard, &self.version.guard));
        same_key.is_none_or(|current| !current.guard.needs_acceptance())
    }

    /// Returns a permit for a trial if none is in flight.
    fn try_acquire(&mut self, now: Instant) -> Admit<Permit> {
        match self.state {
            State::RejectedUntil(until) if now < until => Admit::Suspended(until - now),
            State::InTrial if self.version.guard.is_suspended(now) => Admit::Suspended(SUSPENSION),
            State::InTrial => Admit::Wait,
            State::Untried | State::RejectedUntil(_) => {
                let admit = self.version.guard.try_acquire_trial(now);
                if let Admit::Granted(_) = admit {
                    self.state = State::InTrial;
                }
                admit.map(|grant| Permit { version: self.version.clone(), grant, is_trial: true })
            }
        }
    }

    /// Allows the next trial at once, because there are no accepted credentials to use meanwhile. Two rejections suspend.
    fn end_backoff_beside_accepted(&mut self) {
        if matches!(self.state, State::RejectedUntil(_)) && self.rejections < MAX_REJECTIONS {
            self.state = State::Untried;
        }
    }

    /// Returns how far these credentials are trusted, and until when they are suspended. The trust in their access key may
    /// come from the current credentials.
    fn trust(&self, now: Instant) -> (Trust, Option<Instant>) {
        match (self.state, self.version.guard.trust(now)) {
            (State::RejectedUntil(until), _) if now < until => (Trust::Suspended, Some(until)),
            (_, (Trust::Verified, _)) if self.rejections > 0 => (Trust::Suspect, None),
            (_, (Trust::Verified, _)) => (Trust::Unverified, None),
            (_, trust) => trust,
        }
    }

    fn is_usable(&self, now: Instant) -> bool {
        !self.is_backing_off(now) && self.version.guard.is_usable(now)
    }

    /// Returns whether the next trial waits, because SCM has rejected the credentials.
    fn is_backing_off(&self, now: Instant) -> bool {
        matches!(self.state, State::RejectedUntil(until) if now < until)
    }
}
