//! The memory quota of connections: what HTTP/2 holds for all of them together.
//!
//! A peer decides when it reads a response, and h2 never shrinks the buffers of a connection. Rejecting calls would free
//! neither, so connections are closed when the quota is exceeded. First go those that have been stalled for long, then idle
//! ones, then the other stalled ones. The peer that has read least goes first, so that a slow reader outlasts peers that
//! read nothing.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytesize::KIB;
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    config::{CALL_OVERHEAD, IDLE_CONNECTION},
};

/// The bytes that h2 keeps for each of the streams that were open at the same time, until the connection closes.
const RETAINED: usize = 2 * KIB as usize;

/// The bytes of an open stream: its header fields, its task and the buffer that its response is encoded in.
pub(in crate::grpc) const STREAM: usize = 6 * KIB as usize;

/// The bytes of a response body that waits for its peer, in addition to those of its stream. A stream then counts as much
/// as in the memory quota of calls, so that unread responses alone cannot use up that quota.
pub(in crate::grpc) const UNREAD_BODY: usize = CALL_OVERHEAD - STREAM;

/// Idle connections with fewer bytes are not worth evicting.
const MIN_IDLE: usize = 64 * KIB as usize;

/// A peer that has read nothing for this long is not a slow reader.
const LONG: Duration = Duration::from_secs(5);

/// How long no connection is looked for after none could be evicted, because the search visits all connections.
const SEARCH_BACKOFF: Duration = Duration::from_millis(10);

/// Evictions are logged once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Why a connection is evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::grpc) enum Eviction {
    /// Its peer does not read.
    Stalled,
    /// It has no call in flight.
    Idle,
}

/// The order in which connections are evicted.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Stalled for long, since then.
    LongStalled(Instant),
    /// Idle, at least since then.
    Idle(Instant),
    /// Stalled, after the peer has read this many bytes for each open stream.
    Stalled(usize),
    /// Without a call, but with watches of certificates, at least since then.
    Watching(Instant),
}

impl Eviction {
    /// Returns the `reason` label.
    pub(in crate::grpc) fn reason(self) -> &'static str {
        match self {
            Self::Stalled => "stalled",
            Self::Idle => "idle",
        }
    }
}

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

/// The account of a connection.
pub(in crate::grpc) struct Account {
    shared: Arc<Shared>,
    used: AtomicUsize,
    open_streams: AtomicUsize,
    /// Those of them that are no calls: health checks and watches, and reflection. They can last as long as the connection.
    builtin_streams: AtomicUsize,
    /// Those of them that are watches of certificates, which can last as long.
    watches: AtomicUsize,
    /// Bytes of response bodies that the socket has not accepted.
    unsent: AtomicUsize,
    /// Those of them that were left when h2 had sent all it could.
    waiting_for_window: AtomicUsize,
    /// Whether the socket accepts no more bytes.
    is_blocked: AtomicBool,
    /// Bytes of responses that the socket has accepted.
    sent: AtomicUsize,
    /// `sent` when the quota was exceeded, and since when it has had that value.
    seen: Mutex<(usize, Instant)>,
    eviction: OnceLock<(Eviction, usize)>,
    /// Closes the connection.
    closing: CancellationToken,
    /// Ends the watches of the connection, and then closes it.
    draining: CancellationToken,
    /// When the connection began to drain, instead of closing at once.
    drained: OnceLock<Instant>,
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
        let account = Arc::new(Account {
            shared: self.0.clone(),
            used: AtomicUsize::new(0),
            open_streams: AtomicUsize::new(0),
            builtin_streams: AtomicUsize::new(0),
            watches: AtomicUsize::new(0),
            unsent: AtomicUsize::new(0),
            waiting_for_window: AtomicUsize::new(0),
            is_blocked: AtomicBool::new(false),
            sent: AtomicUsize::new(0),
            seen: Mutex::new((0, clock::monotonic())),
            eviction: OnceLock::new(),
            closing,
            draining,
            drained: OnceLock::new(),
        });
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
        let stalled =
            candidates.iter().filter(|(rank, _)| is_stalled(rank)).map(|(_, account)| account.used.load(Relaxed));
        let mut stalled: usize = stalled.sum();
        let draining =
            accounts.iter().filter(|account| account.is_draining(now)).map(|account| account.used.load(Relaxed));
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
            let used = account.used.load(Relaxed);
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

impl Account {
    /// Charges bytes.
    pub(in crate::grpc) fn charge(&self, bytes: usize) {
        self.used.fetch_add(bytes, Relaxed);
        self.shared.used.fetch_add(bytes, Relaxed);
        self.check();
    }

    /// Releases charged bytes.
    pub(in crate::grpc) fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Relaxed);
        self.shared.used.fetch_sub(bytes, Relaxed);
    }

    /// Charges a stream that the peer has opened. `is_peak` if never so many were open at the same time.
    pub(in crate::grpc) fn open_stream(&self, is_peak: bool) {
        self.open_streams.fetch_add(1, Relaxed);
        self.charge(if is_peak { STREAM + RETAINED } else { STREAM });
    }

    /// Releases the charge of a stream whose response the socket has accepted.
    pub(in crate::grpc) fn close_stream(&self) {
        self.open_streams.fetch_sub(1, Relaxed);
        self.release(STREAM);
    }

    /// Counts a stream of a health check, a health watch or reflection, until the guard is dropped.
    pub(in crate::grpc) fn builtin_stream(self: &Arc<Self>) -> CountedStream {
        CountedStream::new(self, |account| &account.builtin_streams)
    }

    /// Counts a watch of a certificate, until the guard is dropped.
    pub(in crate::grpc) fn watch(self: &Arc<Self>) -> CountedStream {
        CountedStream::new(self, |account| &account.watches)
    }

    /// Adds bytes of a response that h2 has to send.
    pub(in crate::grpc) fn add_unsent(&self, bytes: usize) {
        self.unsent.fetch_add(bytes, Relaxed);
        if bytes > STREAM {
            self.charge(bytes);
        }
    }

    /// Removes bytes that were added before, because they were sent or their stream was reset.
    pub(in crate::grpc) fn remove_unsent(&self, bytes: usize) {
        self.unsent.fetch_sub(bytes, Relaxed);
        if bytes > STREAM {
            self.release(bytes);
        }
    }

    /// Records that the socket has accepted bytes of a response.
    pub(in crate::grpc) fn record_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes, Relaxed);
    }

    /// Records that the socket accepts no more bytes.
    pub(in crate::grpc) fn record_blocked(&self) {
        self.is_blocked.store(true, Relaxed);
        self.check();
    }

    /// Records that h2 has sent all it could. What is left waits for the peer's window.
    pub(in crate::grpc) fn record_flushed(&self) {
        self.is_blocked.store(false, Relaxed);
        self.waiting_for_window.store(self.unsent.load(Relaxed), Relaxed);
        self.check();
    }

    /// Returns the charged bytes.
    #[cfg(test)]
    pub(in crate::grpc) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    fn check(&self) {
        if self.shared.used_by_open() > self.shared.quota {
            self.shared.evict();
        }
    }

    /// Returns the rank of a connection that can be evicted. One with calls in flight cannot, unless its peer does not read.
    fn rank(&self, now: Instant) -> Option<Rank> {
        let sent = self.sent.load(Relaxed);
        let mut seen = self.seen.lock().expect("no panic while the lock is held");
        if seen.0 != sent {
            *seen = (sent, now);
        }
        let (_, since) = *seen;
        let streams = self.open_streams.load(Relaxed);
        let waits_for_window = self.waiting_for_window.load(Relaxed) > 0 && self.unsent.load(Relaxed) > 0;
        if self.eviction.get().is_some() {
            None
        } else if streams > 0 && (self.is_blocked.load(Relaxed) || waits_for_window) {
            Some(if now - since >= LONG { Rank::LongStalled(since) } else { Rank::Stalled(sent / streams.max(1)) })
        } else if let Some(since) = self.drained.get() {
            (!self.is_draining(now)).then_some(Rank::LongStalled(*since))
        } else {
            let builtin = self.builtin_streams.load(Relaxed);
            let watches = self.watches.load(Relaxed);
            // The counters of streams that are reset at once fall one after the other, so fewer streams mean nothing yet.
            let rank = match streams {
                _ if self.used.load(Relaxed) < MIN_IDLE => return None,
                _ if streams == builtin => Rank::Idle(since),
                _ if streams == builtin + watches => Rank::Watching(since),
                _ => return None,
            };
            Some(rank)
        }
    }

    /// Returns whether the connection began to drain a short time ago, and is not closed.
    fn is_draining(&self, now: Instant) -> bool {
        self.eviction.get().is_none() && self.drained.get().is_some_and(|since| now - *since < LONG)
    }

    /// Evicts the connection by closing it.
    fn close(&self, eviction: Eviction) {
        let used = self.used.load(Relaxed);
        if self.eviction.set((eviction, used)).is_ok() {
            self.shared.closing.fetch_add(used, Relaxed);
            self.shared.evictions.add(1, &[KeyValue::new("reason", eviction.reason())]);
            self.closing.cancel();
        }
    }

    /// Evicts the connection by draining it, so that its watches get a status. It is closed if that takes too long.
    fn drain(&self, now: Instant) {
        if self.drained.set(now).is_ok() {
            self.shared.evictions.add(1, &[KeyValue::new("reason", Eviction::Idle.reason())]);
            self.draining.cancel();
        }
    }

    /// Returns why the connection is closed, if it is evicted.
    pub(in crate::grpc) fn eviction(&self) -> Option<Eviction> {
        self.eviction.get().map(|(eviction, _)| *eviction)
    }
}

/// A stream that a connection has in a counter of its own, beside that of all streams.
pub(in crate::grpc) struct CountedStream {
    account: Arc<Account>,
    counter: fn(&Account) -> &AtomicUsize,
}

impl CountedStream {
    fn new(account: &Arc<Account>, counter: fn(&Account) -> &AtomicUsize) -> Self {
        counter(account).fetch_add(1, Relaxed);
        Self { account: account.clone(), counter }
    }
}

impl Drop for CountedStream {
    fn drop(&mut self) {
        (self.counter)(&self.account).fetch_sub(1, Relaxed);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let shared = &self.shared;
        shared.used.fetch_sub(*self.used.get_mut(), Relaxed);
        if let Some((_, used)) = self.eviction.get() {
            shared.closing.fetch_sub(*used, Relaxed);
        }
        shared.lock().retain(|account| account.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests;
