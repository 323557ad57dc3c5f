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
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    latest: Latest,
    watchers: usize,
}

impl Channel {
    /// Replaces the certificate. Returns whether watchers get it.
    pub(super) fn update(&self, certificate: &Certificate) -> bool {
        let has_changed = self.lock().latest.update(certificate);
        if has_changed {
            self.changed.notify_waiters();
        }
        has_changed
    }

    /// Ends the watches, unless they have ended.
    pub(super) fn close(&self, end: Result<(), Error>) {
        self.lock().latest.close(end);
        self.changed.notify_waiters();
    }

    /// Waits until the newest state has what `find` looks for.
    pub(super) fn wait<T>(&self, mut find: impl FnMut(&Latest) -> Option<T>) -> impl Future<Output = T> {
        self.wait_for(move |state| find(&state.latest))
    }

    /// Waits until nobody watches.
    pub(super) fn unwatched(&self) -> impl Future<Output = ()> {
        self.wait_for(|state| (state.watchers == 0).then_some(()))
    }

    pub(super) fn is_unwatched(&self) -> bool {
        self.lock().watchers == 0
    }

    pub(super) fn add_watcher(&self) {
        self.lock().watchers += 1;
    }

    pub(super) fn remove_watcher(&self) {
        let mut state = self.lock();
        state.watchers -= 1;
        if state.watchers == 0 {
            self.changed.notify_waiters();
        }
    }

    async fn wait_for<T>(&self, mut find: impl FnMut(&State) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified(); // before the look at the state, so that no change is missed
            if let Some(found) = find(&self.lock()) {
                return found;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the lock is held")
    }
}
