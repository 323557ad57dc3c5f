//! Connections with a pending handshake: TLS and the HTTP/2 preface are still to come.
//!
//! Their peers are unidentified, and a silent peer occupies a slot. When slots run short, each new connection evicts the
//! oldest pending handshake, because a client that intends to call completes its handshake quickly.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio_util::sync::CancellationToken;

/// The pending handshakes of a listener.
#[derive(Clone, Default)]
pub(super) struct PendingHandshakes(Arc<Mutex<Pending>>);

#[derive(Default)]
struct Pending {
    next: u64,
    /// By age.
    handshakes: BTreeMap<u64, CancellationToken>,
}

/// A pending handshake.
pub(super) struct PendingHandshake {
    all: PendingHandshakes,
    number: u64,
    /// Cancelled when the handshake is evicted, or with the connection's token.
    pub(super) evicted: CancellationToken,
}

impl PendingHandshakes {
    /// Adds the pending handshake of a connection, which `closing` closes.
    pub(super) fn register(&self, closing: &CancellationToken) -> PendingHandshake {
        let mut pending = self.lock();
        let number = pending.next;
        pending.next += 1;
        let evicted = closing.child_token();
        pending.handshakes.insert(number, evicted.clone());
        PendingHandshake { all: self.clone(), number, evicted }
    }

    /// Evicts the oldest pending handshake.
    pub(super) fn evict_oldest(&self) {
        let oldest = self.lock().handshakes.pop_first();
        if let Some((_, oldest)) = oldest {
            oldest.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().expect("no panic while the lock is held")
    }
}

impl PendingHandshake {
    /// Completes the handshake, so that it cannot be evicted any more. Returns false if it has been evicted already.
    pub(super) fn complete(&self) -> bool {
        self.all.lock().handshakes.remove(&self.number).is_some()
    }
}

impl Drop for PendingHandshake {
    fn drop(&mut self) {
        self.all.lock().handshakes.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::PendingHandshakes;

    #[test]
    fn the_oldest_pending_handshake_is_evicted() {
        let handshakes = PendingHandshakes::default();
        let [first, second, third] = [(); 3].map(|()| handshakes.register(&CancellationToken::new()));
        assert!(first.complete());
        handshakes.evict_oldest();
        assert!(!first.evicted.is_cancelled() && second.evicted.is_cancelled() && !third.evicted.is_cancelled());
        assert!(!second.complete(), "evicted before it was complete");
        drop((first, second, third));
        handshakes.evict_oldest();
        assert!(handshakes.lock().handshakes.is_empty(), "closed connections are removed");
    }
}
