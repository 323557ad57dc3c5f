//! The account of one connection: what it holds, how it can be evicted, and in which order.

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytesize::KIB;
use opentelemetry::KeyValue;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::{clock, config::CALL_OVERHEAD};

/// The bytes that h2 keeps for each of the streams that were open at the same time, until the connection closes.
pub(super) const RETAINED: usize = 2 * KIB as usize;

/// The bytes of an open stream: its header fields, its task and the buffer that its response is encoded in.
pub(in crate::grpc) const STREAM: usize = 6 * KIB as usize;

/// The bytes of a response body that waits for its peer, in addition to those of its stream. A stream then counts as much
/// as in the memory quota of calls, so that unread responses alone cannot use up that quota.
pub(in crate::grpc) const UNREAD_BODY: usize = CALL_OVERHEAD - STREAM;

/// Idle connections with fewer bytes are not worth evicting.
const MIN_IDLE: usize = 64 * KIB as usize;

/// A peer that has read nothing for this long is not a slow reader.
pub(super) const LONG: Duration = Duration::from_secs(5);

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
pub(super) enum Rank {
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

/// The account of a connection.
pub(in crate::grpc) struct Account {
    shared: Arc<Shared>,
    used: AtomicUsize,
    open_streams: AtomicUsize,
    /// Those of them that are no calls: health checks and watches, and reflection. They can last as long as the connection.
    pub(super) builtin_streams: AtomicUsize,
    /// Those of them that are watches of certificates, which can last as long.
    pub(super) watches: AtomicUsize,
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
    pub(super) closing: CancellationToken,
    /// Ends the watches of the connection, and then closes it.
    pub(super) draining: CancellationToken,
    /// When the connection began to drain, instead of closing at once.
    drained: OnceLock<Instant>,
}

impl Account {
    pub(super) fn new(shared: Arc<Shared>, closing: CancellationToken, draining: CancellationToken) -> Self {
        Self {
            shared,
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
        }
    }

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
    pub(in crate::grpc) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    fn check(&self) {
        if self.shared.used_by_open() > self.shared.quota {
            self.shared.evict();
        }
    }

    /// Returns the rank of a connection that can be evicted. One with calls in flight cannot, unless its peer does not read.
    pub(super) fn rank(&self, now: Instant) -> Option<Rank> {
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
    pub(super) fn is_draining(&self, now: Instant) -> bool {
        self.eviction.get().is_none() && self.drained.get().is_some_and(|since| now - *since < LONG)
    }

    /// Evicts the connection by closing it.
    pub(super) fn close(&self, eviction: Eviction) {
        let used = self.used.load(Relaxed);
        if self.eviction.set((eviction, used)).is_ok() {
            self.shared.closing.fetch_add(used, Relaxed);
            // A connection that drained for too long has been counted.
            if self.drained.get().is_none() {
                self.shared.evictions.add(1, &[KeyValue::new("reason", eviction.reason())]);
            }
            self.closing.cancel();
        }
    }

    /// Evicts the connection by draining it, so that its watches get a status. It is closed if that takes too long.
    pub(super) fn drain(&self, now: Instant) {
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
