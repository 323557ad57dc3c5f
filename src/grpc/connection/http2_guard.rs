//! An I/O wrapper between the socket and h2 that enforces framing, flood limits and timeouts of HTTP/2.
//!
//! It closes a connection that does not complete its handshake in time, breaks the framing of RFC 9113, floods the gateway
//! with control frames, or does not read what it is sent.

use std::{
    error::Error as StdError,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{self, Poll, Waker, ready},
    time::Duration,
};

use h2::Reason;
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep, sleep_until},
};

use super::handshakes::PendingHandshake;
use crate::{
    clock,
    grpc::limit::connection_memory::{Account, Eviction},
};

mod frames;
mod open_streams;

use frames::{Inbound, Outbound};
use open_streams::OpenStreams;

/// Counts the connections that are closed because of what their client sent.
#[derive(Clone)]
pub(super) struct ProtocolErrors(Counter<u64>);

impl ProtocolErrors {
    pub(super) fn new(meter: &Meter) -> Self {
        let counter = meter
            .u64_counter("scm_gateway.connections.protocol_errors")
            .with_description("Connections closed because of what their client sent, by reason")
            .build();
        let reasons = ["flood", "protocol"].map(|reason| [KeyValue::new("reason", reason)]);
        reasons.iter().for_each(|reason| counter.add(0, reason)); // so that a rate sees the first error
        Self(counter)
    }

    fn count(&self, reason: Reason) {
        let reason = if reason == Reason::ENHANCE_YOUR_CALM { "flood" } else { "protocol" };
        self.0.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// Counts the protocol error that h2 found, if that ended the connection. A client that disconnects is not counted.
    pub(super) fn count_error(&self, error: &hyper::Error) {
        let mut source: Option<&(dyn StdError + 'static)> = Some(error);
        while let Some(error) = source {
            let h2 = error.downcast_ref::<h2::Error>().filter(|error| !error.is_io() && !error.is_remote());
            if let Some(reason) = h2.and_then(h2::Error::reason) {
                return self.count(reason);
            }
            source = error.source();
        }
    }
}

/// A guarded stream.
pub(super) struct GuardedIo<S: AsyncWrite + Unpin> {
    inner: S,
    protocol_errors: ProtocolErrors,
    inbound: Inbound,
    /// The highest stream id that h2 may have processed.
    last_stream: u32,
    outbound: Outbound,
    account: Arc<Account>,
    /// `None` once the handshake is complete.
    handshake: Option<PendingHandshake>,
    handshake_completed: Arc<AtomicBool>,
    /// Whether hyper has ended the connection, and reported no error.
    has_ended: Arc<AtomicBool>,
    /// Whether the client has closed the connection, or has to be sent nothing more.
    is_closed: bool,
    write_timeout: Duration,
    /// The write timeout, while the peer does not read.
    write_stalled: Option<Pin<Box<Sleep>>>,
}

/// Reports whether the handshake of a guarded stream is complete.
pub(super) struct HandshakeWatch {
    completed: Arc<AtomicBool>,
}

/// Guards a stream from its first byte on. `handshake` is completed with the HTTP/2 preface. A peer that reads nothing for
/// `write_timeout` is disconnected.
pub(super) fn guard<S: AsyncWrite + Unpin>(
    inner: S,
    max_control_frames: u32,
    protocol_errors: ProtocolErrors,
    handshake: PendingHandshake,
    account: Arc<Account>,
    write_timeout: Duration,
) -> (GuardedIo<S>, HandshakeWatch) {
    let completed = Arc::<AtomicBool>::default();
    let io = GuardedIo {
        inner,
        protocol_errors,
        inbound: Inbound::new(max_control_frames, OpenStreams::new(account.clone()), clock::monotonic()),
        last_stream: 0,
        outbound: Outbound::default(),
        account,
        handshake: Some(handshake),
        handshake_completed: completed.clone(),
        has_ended: Arc::default(),
        is_closed: false,
        write_timeout,
        write_stalled: None,
    };
    (io, HandshakeWatch { completed })
}

impl HandshakeWatch {
    /// Completes at `deadline` if the handshake is not complete by then, otherwise never.
    pub(super) async fn timed_out(self, deadline: Instant) -> &'static str {
        sleep_until(deadline).await;
        if self.completed.load(Relaxed) {
            std::future::pending::<()>().await;
        }
        "no HTTP/2 preface received"
    }
}

impl<S: AsyncWrite + Unpin> GuardedIo<S> {
    /// Returns the flag to set once hyper has ended the connection and reported no error.
    pub(super) fn has_ended(&self) -> Arc<AtomicBool> {
        self.has_ended.clone()
    }

    /// Completes the handshake when the preface has arrived. Returns false if the handshake has been evicted.
    fn check_handshake(&mut self) -> bool {
        let Some(handshake) = &self.handshake else { return true };
        if !self.inbound.has_preface() {
            return true;
        }
        let completed = handshake.complete();
        if completed {
            self.handshake = None;
            self.handshake_completed.store(true, Relaxed);
        }
        completed
    }

    /// Passes on the outcome of a write or flush, or times out if the peer has read nothing for too long.
    fn check_stall<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut task::Context<'_>) -> Poll<io::Result<T>> {
        if let Poll::Ready(result) = &written {
            self.is_closed |= result.is_err();
            self.write_stalled = None;
            return written;
        }
        self.account.record_blocked();
        let write_timeout = self.write_timeout;
        let stalled = self.write_stalled.get_or_insert_with(|| Box::pin(sleep(write_timeout)));
        ready!(stalled.as_mut().poll(cx));
        self.is_closed = true;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Closes the connection because of what its client sent.
    fn close(&mut self, reason: Reason, cx: &mut task::Context<'_>) -> io::Error {
        self.protocol_errors.count(reason);
        self.go_away(reason, cx);
        io::Error::other(h2::Error::from(reason))
    }

    /// Sends GOAWAY with `reason` if the outbound side is at a frame boundary. Best effort: does not wait for the write.
    fn go_away(&mut self, reason: Reason, cx: &mut task::Context<'_>) {
        self.is_closed = true;
        if self.outbound.is_between_frames() {
            let frame = frames::go_away(self.last_stream, reason);
            let _ = Pin::new(&mut self.inner).poll_write(cx, &frame);
            let _ = Pin::new(&mut self.inner).poll_flush(cx);
        }
    }

    /// Follows the frames in bytes that were written.
    fn follow(&mut self, written: &[u8]) {
        let Self { inbound, outbound, .. } = self;
        outbound.write(written, |frame| inbound.follow(frame));
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for GuardedIo<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut task::Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        // h2 has already processed every earlier read. If this one is rejected, h2 never sees its bytes, so no stream in it
        // is executed and GOAWAY may name the last earlier stream.
        this.last_stream = this.inbound.last_stream();
        if let Some(eviction) = this.account.eviction() {
            this.go_away(reason(eviction), cx);
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let read = ready!(Pin::new(&mut this.inner).poll_read(cx, buf));
        this.is_closed |= read.is_err() || buf.filled().len() == before;
        read?;
        let checked = this.inbound.read(&buf.filled()[before..], clock::monotonic());
        if !this.check_handshake() {
            if !this.is_closed {
                this.go_away(Reason::NO_ERROR, cx); // h2 has seen no call, so the client may retry all
            }
            return Poll::Pending; // the task of the connection ends with the eviction, and counts it
        }
        Poll::Ready(checked.map_err(|reason| this.close(reason, cx)))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for GuardedIo<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut task::Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write(cx, buf);
        let written = ready!(this.check_stall(written, cx))?;
        this.follow(&buf[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        let written = ready!(this.check_stall(written, cx))?;
        let mut remaining = written;
        for buf in bufs {
            let size = remaining.min(buf.len());
            this.follow(&buf[..size]);
            remaining -= size;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.inner).poll_flush(cx);
        ready!(this.check_stall(flushed, cx))?;
        this.account.record_flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.is_closed = true; // h2 has sent GOAWAY
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

/// Returns the error code for the client of an evicted connection.
fn reason(eviction: Eviction) -> Reason {
    match eviction {
        Eviction::Stalled => Reason::ENHANCE_YOUR_CALM,
        Eviction::Idle => Reason::NO_ERROR,
    }
}

/// hyper ends the connection of a CONNECT request with content, and sends no GOAWAY. Such a request is malformed (RFC 9113
/// 8.1.1), because the DATA frames of CONNECT are not content. Any other connection without GOAWAY is dropped by the gateway.
impl<S: AsyncWrite + Unpin> Drop for GuardedIo<S> {
    fn drop(&mut self) {
        if self.handshake.is_some() || self.is_closed || !self.inbound.expects_go_away() {
            return;
        }
        self.last_stream = self.inbound.last_stream();
        let cx = &mut task::Context::from_waker(Waker::noop());
        if self.has_ended.load(Relaxed) {
            self.close(Reason::PROTOCOL_ERROR, cx);
        } else {
            self.go_away(self.account.eviction().map_or(Reason::NO_ERROR, reason), cx);
        }
    }
}

#[cfg(test)]
mod tests;
