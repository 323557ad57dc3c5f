//! The live credentials of a project, and the protection of their access key from SCM's lockout.
//!
//! SCM locks an access key for five minutes, for everybody who uses it, after more than five rejected signatures in a
//! row. `lockout.rs` limits the requests in flight while an access key is not verified and suspends it after two
//! rejections in a row. `versions.rs` keeps accepted credentials in use until SCM has accepted newer ones.

use std::sync::Arc;

use futures_util::future::OptionFuture;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use crate::{
    clock,
    config::secret::Credentials,
    error::{Error, Progress, Reason},
};

mod lockout;
pub(crate) mod metadata_service;
pub mod refresher;
mod versions;

use lockout::{Admit, Grant};
pub(super) use lockout::{AuthOutcome, LockoutGuards};
use versions::{Pending, TrialEnd, Version, Versions};

/// A project's credentials, which can be replaced while calls use them. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct LiveCredentials {
    project_id: Arc<str>,
    guards: Arc<LockoutGuards>,
    versions: watch::Sender<Versions>,
}

/// A permit to sign one attempt. Dropped without an outcome, it records [`AuthOutcome::Unknown`].
#[derive(Debug)]
pub(super) struct SigningPermit {
    version: Version,
    grant: Grant,
    outcome: AuthOutcome,
    /// Set if the attempt is the trial of pending credentials.
    trial_of: Option<LiveCredentials>,
}

impl LiveCredentials {
    /// Creates the credentials of a project. Projects with the same access key have to share `guards`.
    pub(super) fn new(project_id: Arc<str>, credentials: Option<Credentials>, guards: Arc<LockoutGuards>) -> Self {
        let live = Self { project_id, guards, versions: watch::Sender::default() };
        if let Some(credentials) = credentials {
            live.install(credentials);
        }
        live
    }

    /// Waits for credentials and a permit until the deadline.
    pub(super) async fn permit(&self, deadline: Instant) -> Result<SigningPermit, Error> {
        let mut changes = self.versions.subscribe();
        loop {
            let (current, pending) = changes.borrow_and_update().both();
            if current.is_none() && pending.is_none() {
                let waited = timeout_at(deadline, changes.changed()).await;
                waited.map_err(|_| no_credentials())?.expect("the sender lives as long as these credentials");
                continue;
            }
            // Created before the check, so that a permit released after the check wakes this call.
            let released = [&current, &pending].map(|version| version.as_ref().map(Version::released));
            let now = clock::monotonic();
            if now > deadline {
                return Err(Error::deadline_before_send("deadline too short"));
            }
            match self.try_acquire(current.as_ref(), pending.as_ref(), now) {
                Admit::Granted(permit) => return Ok(permit),
                Admit::Suspended(wait) => return Err(Error::retry_later(Reason::UpstreamCredentials, wait)),
                Admit::Wait => {}
            }
            let [current_released, pending_released] = released.map(OptionFuture::from);
            let changed = async {
                tokio::select! {
                    Some(()) = current_released => {}
                    Some(()) = pending_released => {}
                    _ = changes.changed() => {}
                }
            };
            let waited = timeout_at(deadline, changed).await;
            waited.map_err(|_| Error::deadline_before_send("waiting for credential verification"))?;
        }
    }

    /// Returns a permit: for the trial of the pending credentials if none is in flight, otherwise for the current ones.
    fn try_acquire(&self, current: Option<&Version>, pending: Option<&Version>, now: Instant) -> Admit<SigningPermit> {
        let trial = pending.map(|version| self.try_trial(version, now));
        match (trial, current) {
            (Some(Admit::Granted(permit)), _) => Admit::Granted(permit),
            (trial, Some(version)) => match (version.guard.try_acquire(now), trial) {
                (Admit::Granted(grant), _) => Admit::Granted(SigningPermit::new(version.clone(), grant, None)),
                (Admit::Suspended(_), Some(Admit::Wait)) | (Admit::Wait, _) => Admit::Wait,
                (Admit::Suspended(wait), Some(Admit::Suspended(other))) => Admit::Suspended(wait.min(other)),
                (Admit::Suspended(wait), _) => Admit::Suspended(wait),
            },
            (Some(trial), None) => trial,
            (None, None) => Admit::Wait,
        }
    }

    /// Returns a permit for the trial of the pending credentials. They may have been replaced since `version` was read.
    fn try_trial(&self, version: &Version, now: Instant) -> Admit<SigningPermit> {
        let mut admit = Admit::Wait;
        self.versions.send_if_modified(|versions| {
            if let Some(pending) = versions.pending_of(&version.credentials) {
                admit = pending.try_acquire(now);
            }
            false // the start of a trial wakes nobody
        });
        admit.map(|grant| SigningPermit::new(version.clone(), grant, Some(self.clone())))
    }

    fn end_trial(&self, credentials: &Arc<Credentials>, outcome: AuthOutcome, now: Instant) {
        let mut end = None;
        self.versions.send_modify(|versions| end = versions.end_trial(credentials, outcome, now));
        let project_id = &*self.project_id;
        match end {
            Some(TrialEnd::Accepted) => tracing::info!(project_id, "new credentials accepted"),
            Some(TrialEnd::Rejected) => {
                tracing::error!(project_id, "new credentials rejected, keeping the previous ones");
            }
            None => {}
        }
    }

    /// Installs new credentials. The ones in use stay in use until SCM has accepted the new ones, if it has accepted the
    /// ones in use.
    pub(super) fn install(&self, credentials: Credentials) {
        let guard = self.guards.get(&credentials.access_key);
        let version = Version { credentials: Arc::new(credentials), guard };
        self.versions.send_modify(|versions| versions.install(version));
    }

    /// Removes credentials that have expired, whether in use or not.
    pub(super) fn remove(&self, credentials: &Credentials) {
        self.versions.send_modify(|versions| versions.remove(credentials));
    }

    /// Allows one request at a time until one is accepted, because SCM may now reject signatures that it accepted before.
    pub(super) fn reverify(&self) {
        if let Some(current) = &self.versions.borrow().current {
            current.guard.reverify();
        }
    }

    /// Returns whether calls are rejected because all credentials are suspended.
    pub(super) fn is_suspended(&self) -> bool {
        self.versions.borrow().is_suspended(clock::monotonic())
    }

    /// Returns whether any credentials are usable. Suspended credentials count as usable once the suspension is over,
    /// because an unready instance would get no traffic to probe with.
    pub(super) fn is_usable(&self) -> bool {
        self.versions.borrow().is_usable(clock::monotonic())
    }

    /// Returns whether SCM has rejected the pending credentials, or `None` if there are none.
    pub(super) fn is_pending_rejected(&self) -> Option<bool> {
        self.versions.borrow().pending.as_ref().map(Pending::is_rejected)
    }
}

impl SigningPermit {
    fn new(version: Version, grant: Grant, trial_of: Option<LiveCredentials>) -> Self {
        Self { version, grant, outcome: AuthOutcome::Unknown, trial_of }
    }

    /// Returns the credentials that sign the attempt.
    pub(super) fn credentials(&self) -> &Credentials {
        &self.version.credentials
    }

    /// Returns whether the trust in the credentials depends on this attempt: its outcome must not be missed, even if the
    /// caller has gone.
    pub(super) fn is_unverified(&self) -> bool {
        self.trial_of.is_some() || self.grant.is_probe() || self.version.guard.is_unverified()
    }

    /// Records the outcome of the attempt and releases the permit.
    pub(super) fn record(mut self, outcome: AuthOutcome) {
        self.outcome = outcome; // recorded on drop
    }
}

impl Drop for SigningPermit {
    fn drop(&mut self) {
        let now = clock::monotonic();
        self.version.guard.record(self.outcome, self.grant, now);
        if let Some(live) = &self.trial_of {
            live.end_trial(&self.version.credentials, self.outcome, now);
        }
    }
}

fn no_credentials() -> Error {
    Error { cause: Some("no credentials"), ..Error::new(Reason::UpstreamCredentials, Progress::NotSent) }
}

#[cfg(test)]
mod tests;
