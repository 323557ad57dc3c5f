//! The wait between two exchanges, and what ends it early.

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    clock::{self, Clock},
    scm::credentials::{
        Lease,
        source::{DynSource, TemporaryCredentials},
    },
};

/// The longest sleep, because the wall clock may jump while the monotonic clock does not, as after a suspend.
pub(super) const MAX_SLEEP: Duration = Duration::from_secs(60);

/// The wait between two exchanges.
pub(super) struct Wait {
    /// When the next exchange is due, on both clocks. The first to reach its time ends the wait.
    pub(super) until: Instant,
    pub(super) wall_until: SystemTime,
    pub(super) clock: Clock,
    /// The source, if a change of its token ends the wait.
    pub(super) changeable: Option<Arc<DynSource<TemporaryCredentials>>>,
    /// The lease of the current credentials, if their rejection by SCM ends the wait, but not before `next_after_rejection`.
    pub(super) lease: Option<Arc<Lease>>,
    pub(super) next_after_rejection: Instant,
}

/// What has ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitEnd {
    /// The time for the next exchange has come, or the token has changed.
    Due,
    /// SCM has rejected the current credentials before their expiry.
    RejectedByScm,
}

impl Wait {
    /// Waits for the first reason for the next exchange.
    pub(super) async fn end(self) -> WaitEnd {
        tokio::select! {
            biased;
            () = self.due() => WaitEnd::Due,
            () = self.changed() => WaitEnd::Due,
            () = self.rejected_by_scm() => WaitEnd::RejectedByScm,
        }
    }

    async fn due(&self) {
        loop {
            let left = self.until.saturating_duration_since(clock::monotonic());
            let left = left.min(self.wall_until.duration_since(self.clock.now()).unwrap_or_default());
            if left.is_zero() {
                return;
            }
            sleep(left.min(MAX_SLEEP)).await;
        }
    }

    async fn changed(&self) {
        match &self.changeable {
            Some(source) => source.changed().await,
            None => pending().await,
        }
    }

    /// Waits until SCM rejects credentials that have not expired.
    async fn rejected_by_scm(&self) {
        let Some(lease) = &self.lease else { return pending().await };
        loop {
            lease.rejected.notified().await;
            if !lease.remaining(&self.clock).is_zero() {
                sleep_until(self.next_after_rejection).await;
                return;
            }
        }
    }
}
