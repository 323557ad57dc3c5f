//! The memory quota of connections: what HTTP/2 holds for all of them together.
//!
//! A peer decides when it reads a response, and h2 never shrinks the buffers of a connection. Rejecting calls would free
//! neither, so connections are closed when the quota is exceeded. First go those that have been stalled for long, then idle
//! ones, then the other stalled ones, then those that only watch certificates. The peer that has read least goes first, so
//! that a slow reader outlasts peers that read nothing.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{clock, config::IDLE_CONNECTION};

mod account;
#[cfg(test)]
mod tests;

use account::Rank;
#[cfg(test)]
pub(in crate::grpc) use account::STREAM;
pub(in crate::grpc) use account::{Account, CountedStream, Eviction, UNREAD_BODY};

/// How long no connection is looked for after none could be evicted, because the search visits all connections.
const SEARCH_BACKOFF: Duration = Duration::from_millis(10);

/// Evictions are logged once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The quota and its accounts.
#[derive(Clone)]
pub(in crate::grpc) struct ConnectionMemory(Arc<Shared>);

struct Shared {
    quota: usize,
    /// The bytes of all accounts.
    used: AtomicUsize,
    /// The bytes of the evicted accounts, whose connections have not been closed yet.
    closing: AtomicUsize,
    accounts: Mutex<Vec<Weak<Account>>>,
    evictions: Counter<u64>,
    /// Until when no connection is looked for.
    backoff_until: Mutex<Option<Instant>>,
    /// When evictions were logged last.
    logged: Mutex<Option<Instant>>,
}

impl ConnectionMemory {
    /// Creates a quota of this many bytes.
    pub(in crate::grpc) fn new(quota: usize, meter: &Meter) -> Self {
        let evictions = meter
            .u64_counter("scm_gateway.connections.evicted")
            .with_description("Connections closed because server.connection_memory_quota was exceeded, by reason")
            .build();
        for eviction in [Eviction::Stalled, Eviction::Idle] {
            evictions.add(0, &[KeyValue::new("reason", eviction.reason())]); // so that a rate sees the first eviction
        }
        Self(Arc::new(Shared {
            quota,
            used: AtomicUsize::new(0),
            closing: AtomicUsize::new(0),
            accounts: Mutex::default(),
            evictions,
            backoff_until: Mutex::default(),
            logged: Mutex::default(),
        }))
    }

    /// Returns the bytes of all connections.
    pub(in crate::grpc) fn used(&self) -> usize {
        self.0.used.load(Relaxed)
    }

    /// Opens the account of a new connection, which closes when `closing` is cancelled, and drains when `draining` is.
    pub(in crate::grpc) fn open(&self, closing: CancellationToken, draining: CancellationToken) -> Arc<Account> {
        let account = Arc::new(Account::new(self.0.clone(), closing, draining));
        self.0.lock().push(Arc::downgrade(&account));
        account.charge(IDLE_CONNECTION);
        account
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Account>>> {
        self.accounts.lock().expect("no panic while the lock is held")
    }

    /// Evicts connections until an eighth of the quota is free, or none is left that can be evicted.
    #[cold]
    fn evict(&self) {
        let now = clock::monotonic();
        let mut backoff_until = self.backoff_until.lock().expect("no panic while the lock is held");
        if backoff_until.is_none_or(|until| now >= until) {
            *backoff_until = (!self.evict_now(now)).then(|| now + SEARCH_BACKOFF);
        }
    }

    /// Returns whether connections have been evicted.
    fn evict_now(&self, now: Instant) -> bool {
        // Unlocked before any account is dropped, which locks.
        let accounts: Vec<_> = self.lock().iter().filter_map(Weak::upgrade).collect();
        let mut candidates: Vec<_> =
            accounts.iter().filter_map(|account| Some((account.rank(now)?, account))).collect();
        candidates.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let is_stalled = |rank: &Rank| matches!(rank, Rank::LongStalled(_) | Rank::Stalled(_));
        let stalled = candidates.iter().filter(|(rank, _)| is_stalled(rank)).map(|(_, account)| account.used());
        let mut stalled: usize = stalled.sum();
        let draining = accounts.iter().filter(|account| account.is_draining(now)).map(|account| account.used());
        let mut draining: usize = draining.sum();
        let mut has_evicted = false;
        for (rank, account) in candidates {
            // A slow reader is not evicted for calls whose peers are about to read.
            if matches!(rank, Rank::Stalled(_)) && stalled <= self.quota / 2 {
                continue;
            }
            if self.used_by_open().saturating_sub(draining) <= self.quota - self.quota / 8 {
                break;
            }
            has_evicted = true;
            self.log(now);
            let used = account.used();
            match rank {
                Rank::LongStalled(_) | Rank::Stalled(_) => {
                    stalled = stalled.saturating_sub(used);
                    account.close(Eviction::Stalled);
                }
                Rank::Idle(_) => account.close(Eviction::Idle),
                Rank::Watching(_) => {
                    draining += used;
                    account.drain(now);
                }
            }
        }
        has_evicted
    }

    /// Logs that connections are evicted, unless it was logged a short time ago.
    fn log(&self, now: Instant) {
        let mut logged = self.logged.lock().expect("no panic while the lock is held");
        if logged.is_none_or(|last| now - last >= LOG_INTERVAL) {
            *logged = Some(now);
            tracing::warn!("connections evicted: server.connection_memory_quota exceeded");
        }
    }

    /// Returns the bytes of the accounts that are not evicted.
    fn used_by_open(&self) -> usize {
        self.used.load(Relaxed).saturating_sub(self.closing.load(Relaxed))
    }
}
