//! A guard between the network and h2: ends a connection that does not begin in time, breaks the framing of HTTP/2,
//! floods, or takes nothing of what it is sent.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Weak},
    task::{self, ready},
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

use super::beginnings::Beginning;
use crate::clock;

mod frames;

use frames::{Inbound, Outbound};

/// Counts the connections that end for what their client sent.
#[derive(Clone)]
pub(super) struct Broken(Counter<u64>);

impl Broken {
    pub(super) fn new(meter: &Meter) -> Self {
        let counter = meter.u64_counter("scm_gateway.connections.protocol_errors");
        let counter =
            counter.with_description("Connections that were ended for what their client sent, by reason").build();
        let reasons = ["flood", "protocol"].map(|reason| [KeyValue::new("reason", reason)]);
        reasons.iter().for_each(|reason| counter.add(0, reason)); // shown before the first one, so that a rate sees it
        Self(counter)
    }

    pub(super) fn count(&self, reason: Reason) {
        let reason = if reason == Reason::ENHANCE_YOUR_CALM { "flood" } else { "protocol" };
        self.0.add(1, &[KeyValue::new("reason", reason)]);
    }
}

/// A guarded stream.
pub(super) struct Guarded<S> {
    inner: S,
    broken: Broken,
    inbound: Inbound,
    /// The highest stream that h2 may have heard of.
    last_stream: u32,
    outbound: Outbound,
    /// None once it has begun.
    beginning: Option<Arc<Beginning>>,
    patience: Duration,
    /// While the peer takes nothing: until when.
    stuck: Option<Pin<Box<Sleep>>>,
}

/// Knows whether a guarded stream has begun.
pub(super) struct Guard(Weak<Beginning>);

/// Guards a stream from its first byte on. Once it has begun, `beginning` is over. Its peer has so much `patience` to take
/// what it is sent.
pub(super) fn guard<S>(
    inner: S,
    max_control_frames: u32,
    broken: Broken,
    beginning: Beginning,
    patience: Duration,
) -> (Guarded<S>, Guard) {
    let beginning = Arc::new(beginning);
    let guard = Guard(Arc::downgrade(&beginning));
    let inbound = Inbound::new(max_control_frames, clock::steady());
    let outbound = Outbound::default();
    let (last_stream, beginning, stuck) = (0, Some(beginning), None);
    (Guarded { inner, broken, inbound, last_stream, outbound, beginning, patience, stuck }, guard)
}

impl Guard {
    /// Done at this time if the stream has not begun by then; else never.
    pub(super) async fn overdue(self, time: Instant) -> &'static str {
        sleep_until(time).await;
        if self.0.strong_count() == 0 {
            std::future::pending::<()>().await;
        }
        "no HTTP/2 preface received"
    }
}

impl<S> Guarded<S> {
    /// The same outcome of a write, but that a peer which takes nothing for too long has gone.
    fn written(
        &mut self,
        written: task::Poll<io::Result<usize>>,
        cx: &mut task::Context<'_>,
    ) -> task::Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        let patience = self.patience;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(patience)));
        stuck.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> Guarded<S> {
    /// Says why, if h2 is not in the midst of a frame and the peer takes it. It is not waited for.
    fn end(&mut self, reason: Reason, cx: &mut task::Context<'_>) -> io::Error {
        self.broken.count(reason);
        if self.outbound.is_between_frames() {
            let frame = frames::go_away(self.last_stream, reason);
            let _ = Pin::new(&mut self.inner).poll_write(cx, &frame);
            let _ = Pin::new(&mut self.inner).poll_flush(cx);
        }
        io::Error::other(h2::Error::from(reason))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> task::Poll<io::Result<()>> {
        let (this, before) = (self.get_mut(), buf.filled().len());
        // What was read before, h2 has; of what it is not given now, it will carry out nothing.
        this.last_stream = this.inbound.last_stream();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        let verdict = this.inbound.read(&buf.filled()[before..], clock::steady());
        if this.inbound.has_begun()
            && let Some(beginning) = this.beginning.take()
            && !beginning.end()
        {
            return task::Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())); // h2 has heard of no call
        }
        task::Poll::Ready(verdict.map_err(|reason| this.end(reason, cx)))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut task::Context<'_>, buf: &[u8]) -> task::Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write(cx, buf);
        let written = ready!(this.written(written, cx))?;
        this.outbound.write(&buf[..written]);
        task::Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> task::Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        let written = ready!(this.written(written, cx))?;
        let mut left = written;
        for buf in bufs {
            let size = left.min(buf.len());
            this.outbound.write(&buf[..size]);
            left -= size;
        }
        task::Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
