//! The live credentials of a project, and the protection of their access key from SCM's lockout.
//!
//! SCM locks an access key for five minutes, for everybody who uses it, after more than five rejected signatures in a
//! row. `lockout.rs` limits the requests in flight while an access key is not verified and suspends it after two
//! rejections in a row. `versions.rs` keeps accepted credentials in use until SCM has accepted newer ones. `source.rs` says
//! where credentials come from, and `refresher.rs` refreshes temporary ones.

use std::{sync::Arc, time::Duration};

use futures_util::future::OptionFuture;
use tokio::time::{Instant, timeout_at};

use crate::{
    clock::{self, Moment},
    config::secret::Credentials,
    error::{Answer, Error, Progress, Reason},
    ops::status::{Circuit, CredentialsVersion},
    sync::{Mutex, MutexGuard, Notify},
};

mod exchange_metrics;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod lease;
mod lockout;
pub mod refresher;
mod schedule;
pub(crate) mod source;
mod versions;

pub(super) use lease::Lease;
use lockout::{Admit, Grant};
pub(super) use lockout::{AuthOutcome, LockoutGuards};
use versions::{Loaded, Permit, TrialEnd, Version, Versions};

/// A project's credentials, which can be replaced while calls use them. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct LiveCredentials(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    project_id: Arc<str>,
    guards: Arc<LockoutGuards>,
    versions: Mutex<Versions>,
    /// Notified when credentials are installed or removed, and when a trial ends.
    changed: Notify,
}

/// A permit to sign one attempt. Dropped without an outcome, it records [`AuthOutcome::Unknown`].
#[derive(Debug)]
pub(super) struct SigningPermit {
    version: Version,
    grant: Grant,
    outcome: AuthOutcome,
    /// Set if the attempt is the trial of pending credentials.
    trial: Option<Trial>,
}

/// The trial of pending credentials.
#[derive(Debug)]
struct Trial {
    of: LiveCredentials,
    /// The response of SCM that rejects the credentials, for the log.
    rejection: Option<Box<Answer>>,
}

impl LiveCredentials {
    /// Creates the credentials of a project. Projects with the same access key have to share `guards`.
    pub(super) fn new(project_id: Arc<str>, credentials: Option<Credentials>, guards: Arc<LockoutGuards>) -> Self {
        let inner = Inner { project_id, guards, versions: Mutex::default(), changed: Notify::new() };
        let live = Self(Arc::new(inner));
        if let Some(credentials) = credentials {
            live.install(credentials, None);
        }
        live
    }

    /// Waits for credentials and a permit until the deadline. Calls `on_wait` if it has to wait for the response to another
    /// request.
    pub(super) async fn permit(&self, deadline: Instant, on_wait: impl FnOnce()) -> Result<SigningPermit, Error> {
        if let Some(permit) = self.try_acquire(deadline)? {
            return Ok(permit);
        }
        if !self.lock().is_empty() {
            on_wait();
        }
        timeout_at(deadline, self.acquire(deadline)).await.unwrap_or_else(|_| Err(self.waited()))
    }

    /// Waits for credentials and a permit.
    async fn acquire(&self, deadline: Instant) -> Result<SigningPermit, Error> {
        loop {
            // Created before the check, so that a change or a release after the check wakes this call.
            let changed = self.0.changed.notified();
            let versions = self.lock().both();
            let released = versions.each_ref().map(|version| version.as_ref().map(Version::released));
            if let Some(permit) = self.try_acquire(deadline)? {
                return Ok(permit);
            }
            let [current_released, pending_released] = released.map(OptionFuture::from);
            tokio::select! {
                biased; // all do the same
                () = changed => {}
                Some(()) = current_released => {}
                Some(()) = pending_released => {}
            }
        }
    }

    /// Returns a permit if one is free.
    fn try_acquire(&self, deadline: Instant) -> Result<Option<SigningPermit>, Error> {
        let now = clock::monotonic();
        if now > deadline {
            return Err(Error::deadline_before_send("deadline too short"));
        }
        match self.lock().try_acquire(now) {
            Admit::Granted(Permit { version, grant, is_trial }) => {
                let trial = is_trial.then(|| Trial { of: self.clone(), rejection: None });
                Ok(Some(SigningPermit { version, grant, outcome: AuthOutcome::Unknown, trial }))
            }
            Admit::Wait => Ok(None),
            Admit::Suspended(wait) => Err(Error::retry_later(Reason::UpstreamCredentials, wait)),
        }
    }

    /// Waits for a permit for the credentials that SCM has accepted. Returns `None` if there are none, and after the
    /// deadline.
    pub(super) async fn permit_of_accepted(&self, deadline: Instant) -> Option<SigningPermit> {
        match self.try_acquire_accepted(deadline)? {
            Admit::Granted(permit) => Some(permit),
            // After a jump of the clock, one request at a time verifies them.
            Admit::Wait => self.permit(deadline, || {}).await.ok(),
            Admit::Suspended(_) => None,
        }
    }

    /// Returns a permit for the credentials that SCM has accepted, if one is free. `None` if there are none.
    fn try_acquire_accepted(&self, deadline: Instant) -> Option<Admit<SigningPermit>> {
        let now = clock::monotonic();
        if now > deadline {
            return None;
        }
        let (version, admit) = self.lock().try_acquire_accepted(now)?;
        Some(admit.map(|grant| SigningPermit { version, grant, outcome: AuthOutcome::Unknown, trial: None }))
    }

    /// Returns the error of a call that has waited until its deadline.
    fn waited(&self) -> Error {
        if self.lock().is_empty() {
            Error { cause: Some("no credentials"), ..Error::new(Reason::UpstreamCredentials, Progress::NotSent) }
        } else {
            Error::deadline_before_send("waiting for credential verification")
        }
    }

    fn end_trial(&self, loaded: &Arc<Loaded>, outcome: AuthOutcome, rejection: Option<&Answer>, now: Instant) {
        let end = self.change(|versions| versions.end_trial(loaded, outcome, now));
        let project_id = &*self.0.project_id;
        match end {
            Some(TrialEnd::Accepted) => tracing::info!(project_id, "new credentials accepted"),
            Some(TrialEnd::Rejected) => {
                let upstream_code = rejection.and_then(|answer| answer.code.as_deref());
                let upstream_request_id = rejection.and_then(|answer| answer.request_id.as_deref());
                tracing::error!(
                    project_id,
                    upstream_code,
                    upstream_request_id,
                    "new credentials rejected, keeping the previous ones"
                );
            }
            None => {}
        }
    }

    /// Installs new credentials. The ones in use stay in use until SCM has accepted the new ones, if it has accepted the
    /// ones in use. Temporary credentials have a lease.
    pub(super) fn install(&self, credentials: Credentials, lease: Option<Arc<Lease>>) {
        let guard = self.0.guards.get(&credentials.access_key);
        let version = Version { loaded: Arc::new(Loaded { credentials, at: clock::monotonic(), lease }), guard };
        self.change(|versions| versions.install(version));
    }

    /// Removes credentials that have expired, whether in use or not.
    pub(super) fn remove(&self, credentials: &Credentials) {
        if self.change(|versions| versions.remove(credentials)) {
            let project_id = &*self.0.project_id;
            tracing::error!(project_id, "credentials expired, and SCM has rejected the new ones");
        }
    }

    /// Allows one request at a time until one is accepted, because SCM may now reject signatures that it accepted before.
    pub(super) fn reverify(&self) {
        self.lock().both().iter().flatten().for_each(|version| version.guard.reverify());
    }

    /// Returns whether calls are rejected because all credentials are suspended.
    pub(super) fn is_suspended(&self) -> bool {
        self.lock().is_suspended(clock::monotonic())
    }

    /// Returns whether any credentials are usable. Suspended credentials count as usable once the suspension is over,
    /// because an unready instance would get no traffic to probe with.
    pub(super) fn is_usable(&self) -> bool {
        self.lock().is_usable(clock::monotonic())
    }

    /// Returns whether SCM has rejected the pending credentials while accepted ones are in use. `None` without pending ones.
    pub(super) fn is_pending_rejected(&self) -> Option<bool> {
        self.lock().is_pending_rejected()
    }

    /// Returns how long ago the credentials were loaded that calls are signed with. `None` without credentials.
    pub(super) fn age(&self) -> Option<Duration> {
        self.lock().loaded_at().map(|loaded_at| clock::monotonic().saturating_duration_since(loaded_at))
    }

    /// Returns the state of the current and the pending credentials for the status page, and that of the circuit that opens
    /// when SCM rejects the credentials.
    pub(super) fn status(&self, moment: &Moment) -> (Option<CredentialsVersion>, Option<CredentialsVersion>, Circuit) {
        let versions = self.lock();
        let (current, pending) = versions.status(moment);
        (current, pending, versions.circuit(moment))
    }

    fn change<T>(&self, work: impl FnOnce(&mut Versions) -> T) -> T {
        let result = work(&mut self.lock());
        self.0.changed.notify_waiters();
        result
    }

    fn lock(&self) -> MutexGuard<'_, Versions> {
        self.0.versions.lock().expect("no panic while the lock is held")
    }
}

impl SigningPermit {
    /// Returns the credentials that sign the attempt.
    pub(super) fn credentials(&self) -> &Credentials {
        &self.version.loaded.credentials
    }

    /// Returns whether the trust in the credentials depends on this attempt: its outcome must not be missed, even if the
    /// caller has gone.
    pub(super) fn is_unverified(&self) -> bool {
        self.is_trial() || self.grant.is_probe() || self.version.guard.is_unverified()
    }

    /// Returns whether the attempt is the trial of credentials that SCM has not accepted yet.
    pub(super) fn is_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// Records what the result of the attempt says about the credentials, and releases the permit.
    pub(super) fn record_result<R>(mut self, result: &Result<R, Error>) {
        if let (Some(trial), Err(error)) = (&mut self.trial, result) {
            trial.rejection.clone_from(&error.answer);
        }
        self.record(AuthOutcome::of(result));
    }

    /// Records the outcome of the attempt and releases the permit.
    fn record(mut self, outcome: AuthOutcome) {
        self.outcome = outcome; // recorded on drop
    }
}

impl Drop for SigningPermit {
    fn drop(&mut self) {
        let now = clock::monotonic();
        self.version.guard.record(self.outcome, self.grant, now);
        if let Some(Trial { of, rejection }) = &self.trial {
            of.end_trial(&self.version.loaded, self.outcome, rejection.as_deref(), now);
        }
        if self.outcome == AuthOutcome::Rejected
            && let Some(lease) = &self.version.loaded.lease
        {
            lease.rejected.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
