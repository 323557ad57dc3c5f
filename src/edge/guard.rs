//! A guard between the network and h2: ends a connection that does not begin in time, breaks the framing of HTTP/2, or
//! floods.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{self, ready},
};

use h2::Reason;
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, sleep_until},
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
        let counter = meter.u64_counter("scm_gateway.connections.broken");
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
    begun: Arc<AtomicBool>,
    /// None once it has begun.
    beginning: Option<Beginning>,
}

/// Done when the time for the beginning is over and it has not come; else never.
pub(super) struct Overdue(Arc<AtomicBool>);

/// Guards a stream from its first byte on. Once it has begun, `beginning` is over.
pub(super) fn guard<S>(inner: S, max_other_frames: u32, broken: Broken, beginning: Beginning) -> (Guarded<S>, Overdue) {
    let begun = Arc::<AtomicBool>::default();
    let inbound = Inbound::new(max_other_frames, clock::steady());
    let outbound = Outbound::default();
    let overdue = Overdue(begun.clone());
    (Guarded { inner, broken, inbound, last_stream: 0, outbound, begun, beginning: Some(beginning) }, overdue)
}

impl Overdue {
    pub(super) async fn by(self, time: Instant) -> &'static str {
        sleep_until(time).await;
        if self.0.load(Relaxed) {
            std::future::pending::<()>().await;
        }
        "no HTTP/2 so far"
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
        if this.beginning.is_some() && this.inbound.has_begun() {
            this.beginning = None;
            this.begun.store(true, Relaxed);
        }
        task::Poll::Ready(verdict.map_err(|reason| this.end(reason, cx)))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut task::Context<'_>, buf: &[u8]) -> task::Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.inner).poll_write(cx, buf))?;
        this.outbound.write(&buf[..written]);
        task::Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> task::Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, bufs))?;
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
