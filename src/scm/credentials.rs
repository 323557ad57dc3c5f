//! The live credentials of a project, and the protection of their access key from SCM's lockout.
//!
//! SCM locks an access key for five minutes, for everybody who uses it, after more than five rejected signatures in a
//! row. `lockout.rs` limits the requests in flight while the credentials are not verified and suspends them after two
//! rejections in a row.

use std::sync::Arc;

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

use lockout::{Admit, Grant, LockoutGuard};
pub(super) use lockout::{AuthOutcome, LockoutGuards};

/// A project's credentials, which can be replaced while calls use them.
#[derive(Debug)]
pub(super) struct LiveCredentials {
    guards: Arc<LockoutGuards>,
    /// `None` before the first temporary credentials, and after their expiry.
    current: watch::Sender<Option<Current>>,
}

/// Credentials and the guard of their access key.
#[derive(Debug, Clone)]
struct Current {
    credentials: Arc<Credentials>,
    guard: Arc<LockoutGuard>,
}

/// A permit to sign one attempt. Dropped without an outcome, it records [`AuthOutcome::Unknown`].
#[derive(Debug)]
pub(super) struct SigningPermit {
    credentials: Arc<Credentials>,
    guard: Arc<LockoutGuard>,
    grant: Grant,
    outcome: AuthOutcome,
}

impl LiveCredentials {
    /// Creates the credentials of a project. Projects with the same access key have to share `guards`.
    pub(super) fn new(credentials: Option<Credentials>, guards: Arc<LockoutGuards>) -> Self {
        let live = Self { guards, current: watch::Sender::new(None) };
        live.replace(credentials);
        live
    }

    /// Waits for credentials and a permit until the deadline.
    pub(super) async fn permit(&self, deadline: Instant) -> Result<SigningPermit, Error> {
        let mut changes = self.current.subscribe();
        loop {
            let current = changes.borrow_and_update().clone();
            let Some(Current { credentials, guard }) = current else {
                let waited = timeout_at(deadline, changes.changed()).await;
                waited.map_err(|_| no_credentials())?.expect("the sender lives as long as these credentials");
                continue;
            };
            // Created before the check, so that a permit released after the check wakes this call.
            let released = guard.released.notified();
            let now = clock::monotonic();
            if now > deadline {
                return Err(Error::deadline_before_send("deadline too short"));
            }
            match guard.try_acquire(now) {
                Admit::Granted(grant) => {
                    let outcome = AuthOutcome::Unknown;
                    return Ok(SigningPermit { credentials, guard: guard.clone(), grant, outcome });
                }
                Admit::Suspended(wait) => return Err(Error::retry_later(Reason::UpstreamCredentials, wait)),
                Admit::Wait => {}
            }
            let changed = async {
                tokio::select! { () = released => {}, _ = changes.changed() => {} }
            };
            let waited = timeout_at(deadline, changed).await;
            waited.map_err(|_| Error::deadline_before_send("waiting for credential verification"))?;
        }
    }

    /// Replaces the credentials, or removes them. The new ones are unverified.
    pub(super) fn replace(&self, credentials: Option<Credentials>) {
        let current = credentials.map(|credentials| {
            let guard = self.guards.get(&credentials.access_key);
            guard.reset();
            Current { credentials: Arc::new(credentials), guard }
        });
        self.current.send_replace(current);
    }

    /// Allows one request at a time until one is accepted, because SCM may now reject signatures that it accepted before.
    pub(super) fn reverify(&self) {
        self.with_guard(|guard| guard.reverify());
    }

    /// Returns whether calls are rejected because the credentials are suspended.
    pub(super) fn is_suspended(&self) -> bool {
        self.with_guard(|guard| guard.is_suspended(clock::monotonic())).unwrap_or(false)
    }

    /// Returns whether the credentials are usable. Suspended credentials count as usable once the suspension is over,
    /// because an unready instance would get no traffic to probe with.
    pub(super) fn is_usable(&self) -> bool {
        self.with_guard(|guard| guard.is_usable(clock::monotonic())).unwrap_or(false)
    }

    fn with_guard<T>(&self, work: impl FnOnce(&LockoutGuard) -> T) -> Option<T> {
        self.current.borrow().as_ref().map(|current| work(&current.guard))
    }
}

impl SigningPermit {
    /// Returns the credentials that sign the attempt.
    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Returns whether the trust in the credentials depends on this attempt: its outcome must not be missed, even if the
    /// caller has gone.
    pub(super) fn is_unverified(&self) -> bool {
        self.grant.is_probe() || self.guard.is_unverified()
    }

    /// Records the outcome of the attempt and releases the permit.
    pub(super) fn record(mut self, outcome: AuthOutcome) {
        self.outcome = outcome; // recorded on drop
    }
}

impl Drop for SigningPermit {
    fn drop(&mut self) {
        self.guard.record(self.outcome, self.grant, clock::monotonic());
    }
}

fn no_credentials() -> Error {
    Error { cause: Some("no credentials"), ..Error::new(Reason::UpstreamCredentials, Progress::NotSent) }
}

#[cfg(test)]
mod tests;
