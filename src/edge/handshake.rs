//! Ends a connection that does not begin to speak HTTP/2 in time.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, sleep_until},
};

/// The client's preface and the head of its SETTINGS frame (RFC 9113 3.4, 4.1).
const BEGINNING: usize = 24 + 9;

/// A stream that tells how much was read from it.
pub(super) struct Watched<S> {
    inner: S,
    read: Arc<AtomicUsize>,
}

/// Done when the time for the beginning is over and it has not come; else never.
pub(super) struct Overdue(Arc<AtomicUsize>);

/// Watches a stream from its first byte on.
pub(super) fn watch<S>(inner: S) -> (Watched<S>, Overdue) {
    let read = Arc::<AtomicUsize>::default();
    (Watched { inner, read: read.clone() }, Overdue(read))
}

impl Overdue {
    pub(super) async fn by(self, time: Instant) -> &'static str {
        sleep_until(time).await;
        if self.0.load(Relaxed) >= BEGINNING {
            std::future::pending::<()>().await;
        }
        "no HTTP/2 so far"
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> task::Poll<io::Result<()>> {
        let (this, before) = (self.get_mut(), buf.filled().len());
        let polled = Pin::new(&mut this.inner).poll_read(cx, buf);
        this.read.fetch_add(buf.filled().len() - before, Relaxed);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut task::Context<'_>, buf: &[u8]) -> task::Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> task::Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs)
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
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::timeout,
    };

    use super::{BEGINNING, watch};
    use crate::clock::steady;

    async fn is_overdue(bytes: usize) -> bool {
        let (mut client, server) = tokio::io::duplex(64);
        let (mut watched, overdue) = watch(server);
        client.write_all(&vec![b'x'; bytes]).await.unwrap();
        let mut read = vec![0; bytes];
        watched.read_exact(&mut read).await.unwrap();
        timeout(Duration::from_secs(60), overdue.by(steady() + Duration::from_secs(10))).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_beginning_that_is_not_whole_in_time_is_overdue() {
        assert!(is_overdue(0).await);
        assert!(is_overdue(BEGINNING - 1).await);
        assert!(!is_overdue(BEGINNING).await);
    }
}
