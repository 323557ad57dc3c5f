//! What the task of a certificate shares with its watchers. tokio's `watch` channel has eight lists of waiters, for many more
//! watchers than a certificate has, and takes five times the memory.

use super::state::Latest;
use crate::{
    error::Error,
    proto::Certificate,
    sync::{Mutex, MutexGuard, Notify},
};

/// The newest state of a certificate, and who waits for it.
#[derive(Default)]
pub(super) struct Channel {
    latest: Mutex<Latest>,
    changed: Notify,
}

impl Channel {
    /// Replaces the certificate. Returns whether watchers get it.
    pub(super) fn update(&self, certificate: &Certificate) -> bool {
        let has_changed = self.lock().update(certificate);
        if has_changed {
            self.changed.notify_waiters();
        }
        has_changed
    }

    /// Ends the watches, unless they have ended.
    pub(super) fn close(&self, end: Result<(), Error>) {
        self.lock().close(end);
        self.changed.notify_waiters();
    }

    /// Waits until the newest state has what `find` looks for.
    pub(super) async fn wait<T>(&self, mut find: impl FnMut(&Latest) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified(); // before the look at the state, so that no change is missed
            if let Some(found) = find(&self.lock()) {
                return found;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().expect("no panic while the lock is held")
    }
}
