//! Connections that have not begun: a TLS handshake and the first frame of HTTP/2 are still to come. Who they are is not
//! known, and who says nothing costs a place. So many may there be; one more takes the place of the oldest, for who means
//! to call has begun within a moment.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio_util::sync::CancellationToken;

/// All of a listener's.
#[derive(Clone)]
pub(super) struct Beginnings(Arc<Inner>);

struct Inner {
    most: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    /// By age.
    all: BTreeMap<u64, CancellationToken>,
}

/// One that has not begun. It has when this is dropped.
pub(super) struct Beginning {
    all: Beginnings,
    number: u64,
    /// Cancelled when it has to give way to another.
    pub(super) gives_way: CancellationToken,
}

impl Beginnings {
    /// So many at a time.
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Inner { most, waiting: Mutex::default() }))
    }

    /// One more.
    pub(super) fn enter(&self) -> Beginning {
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next += 1;
        let gives_way = CancellationToken::new();
        waiting.all.insert(number, gives_way.clone());
        if waiting.all.len() > self.0.most
            && let Some((_, oldest)) = waiting.all.pop_first()
        {
            oldest.cancel();
        }
        drop(waiting);
        Beginning { all: self.clone(), number, gives_way }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().expect("nothing panics while it looks who waits")
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
        let beginnings = Beginnings::new(2);
        let [first, second] = [(); 2].map(|()| beginnings.enter());
        drop(first); // it has begun
        let third = beginnings.enter();
        assert!(!second.gives_way.is_cancelled() && !third.gives_way.is_cancelled());
        let fourth = beginnings.enter();
        assert!(second.gives_way.is_cancelled());
        assert!(!third.gives_way.is_cancelled() && !fourth.gives_way.is_cancelled());
        drop((second, third, fourth));
        assert!(beginnings.lock().all.is_empty(), "nobody is remembered who has gone");
    }
}
