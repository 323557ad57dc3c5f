//! Connections that have not begun: a TLS handshake and the first frame of HTTP/2 are still to come. Who they are is not
//! known, and who says nothing costs a place. When places run short, the oldest of them gives way to one that comes: who
//! means to call has begun within a moment.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio_util::sync::CancellationToken;

/// All of a listener's.
#[derive(Clone, Default)]
pub(super) struct Beginnings(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    next: u64,
    /// By age.
    all: BTreeMap<u64, CancellationToken>,
}

/// One that has not begun.
pub(super) struct Beginning {
    all: Beginnings,
    number: u64,
    /// Cancelled when it has to give way.
    pub(super) gives_way: CancellationToken,
}

impl Beginnings {
    /// One more.
    pub(super) fn enter(&self) -> Beginning {
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next += 1;
        let gives_way = CancellationToken::new();
        waiting.all.insert(number, gives_way.clone());
        Beginning { all: self.clone(), number, gives_way }
    }

    /// The oldest gives way.
    pub(super) fn make_room(&self) {
        let oldest = self.lock().all.pop_first();
        if let Some((_, oldest)) = oldest {
            oldest.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().expect("nothing panics while it looks who waits")
    }
}

impl Beginning {
    /// It has begun and gives way no more; false if it has to already.
    pub(super) fn end(&self) -> bool {
        self.all.lock().all.remove(&self.number).is_some()
    }
}

impl Drop for Beginning {
    fn drop(&mut self) {
        self.all.lock().all.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::Beginnings;

    #[test]
    fn the_oldest_that_has_not_begun_gives_way() {
        let beginnings = Beginnings::default();
        let [first, second, third] = [(); 3].map(|()| beginnings.enter());
        assert!(first.end());
        beginnings.make_room();
        assert!(!first.gives_way.is_cancelled() && second.gives_way.is_cancelled() && !third.gives_way.is_cancelled());
        assert!(!second.end(), "it comes too late");
        drop((first, second, third));
        beginnings.make_room();
        assert!(beginnings.lock().all.is_empty(), "nobody is remembered who has gone");
    }
}
