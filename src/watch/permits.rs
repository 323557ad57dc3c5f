//! The permits for the polls of a project.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::{Semaphore, SemaphorePermit};

/// The permits of a project.
pub(super) struct Permits {
    all: Semaphore,
    /// The share of each caller, so that the polls of one with many certificates leave permits to the others.
    shares: BTreeMap<Arc<str>, Semaphore>,
}

/// A permit for one poll, returned on drop.
pub(super) struct Permit<'a> {
    _share: Option<SemaphorePermit<'a>>,
    _all: SemaphorePermit<'a>,
}

impl Permits {
    /// Creates permits for this many polls in flight.
    pub(super) fn new(callers: &BTreeSet<Arc<str>>, max: usize) -> Self {
        let share = if callers.len() > 1 { max.div_ceil(2) } else { max };
        let shares = callers.iter().map(|caller| (caller.clone(), Semaphore::new(share))).collect();
        Self { all: Semaphore::new(max), shares }
    }

    /// Waits for a permit. Callers that are not listed have no share: each may use all permits.
    pub(super) async fn acquire(&self, caller: Option<&Arc<str>>) -> Permit<'_> {
        const OPEN: &str = "the semaphore is never closed";
        let share = match caller.and_then(|caller| self.shares.get(caller)) {
            Some(share) => Some(share.acquire().await.expect(OPEN)),
            None => None,
        };
        Permit { _share: share, _all: self.all.acquire().await.expect(OPEN) }
    }
}
