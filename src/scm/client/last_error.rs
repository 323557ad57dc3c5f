//! The last error of a project's requests to SCM, for the status page.

use std::sync::Mutex;

use tokio::time::Instant;

use crate::{
    clock::{self, Moment},
    error::{Error, Reason},
    ops::status,
};

#[derive(Debug, Default)]
pub(super) struct LastError(Mutex<Option<(Reason, Instant)>>);

impl LastError {
    /// Stores why an attempt failed, unless that says nothing about SCM or the gateway. A deadline is the caller's, and only
    /// the circuit breaker knows whether the response took unusually long.
    pub(super) fn record(&self, error: &Error) {
        if !error.reason.is_of_request() && !matches!(error.reason, Reason::Deadline | Reason::ShuttingDown) {
            self.store(error.reason);
        }
    }

    /// Stores that the response took unusually long, and nobody waits for it any more.
    pub(super) fn record_missing_response(&self) {
        self.store(Reason::Deadline);
    }

    /// Returns the last error for the status page.
    pub(super) fn status(&self, moment: &Moment) -> Option<status::LastError> {
        let last = *self.0.lock().expect("no panic while the lock is held");
        last.map(|(reason, at)| status::LastError { reason: reason.name(), at: moment.wall_time(at).into() })
    }

    fn store(&self, reason: Reason) {
        *self.0.lock().expect("no panic while the lock is held") = Some((reason, clock::monotonic()));
    }
}
