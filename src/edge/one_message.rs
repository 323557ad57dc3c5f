//! A unary call has one message: the second one is refused before the call is carried out. One that its client gives up
//! before the end of the request is no call that failed.

use std::{
    pin::Pin,
    task::{self, ready},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tonic::Status;

/// A length-prefixed message begins with one byte of flags and four of length (gRPC over HTTP/2, "Messages").
const PREFIX: usize = 5;

/// A request body that fails at the first byte of a second message, and after a reset never ends: hyper, which looks for
/// one whenever a call waits, then drops the call.
pub(super) struct OneMessage<B> {
    inner: B,
    /// None where the call may be a stream.
    seen: Option<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that have come.
    filled: usize,
    /// Bytes of the message still to come.
    left: usize,
}

impl Seen {
    /// Takes the next bytes; false if they begin a second message.
    fn take(&mut self, data: &[u8]) -> bool {
        let (prefix, rest) = data.split_at((PREFIX - self.filled).min(data.len()));
        if !prefix.is_empty() {
            self.prefix[self.filled..self.filled + prefix.len()].copy_from_slice(prefix);
            self.filled += prefix.len();
            let [_, length @ ..] = self.prefix;
            self.left = u32::from_be_bytes(length) as usize;
        }
        if self.filled < PREFIX {
            return true;
        }
        let fits = rest.len() <= self.left;
        self.left = self.left.saturating_sub(rest.len());
        fits
    }
}

impl<B> OneMessage<B> {
    /// For a call of a method that is a stream, if `is_stream`, or else unary.
    pub(super) fn new(inner: B, is_stream: bool) -> Self {
        Self { inner, seen: (!is_stream).then(Seen::default) }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for OneMessage<B>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        let Some(seen) = &mut this.seen else {
            return task::Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        };
        match frame {
            Some(Ok(frame)) if frame.data_ref().is_none_or(|data| seen.take(data)) => {
                task::Poll::Ready(Some(Ok(frame)))
            }
            Some(Ok(_)) => {
                let second = Status::unimplemented("a unary call takes one message");
                task::Poll::Ready(Some(Err(second.into())))
            }
            None if this.inner.is_end_stream() => task::Poll::Ready(None),
            Some(Err(_)) | None => task::Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::Seen;

    const MESSAGE: &[u8] = b"\0\0\0\0\x03abc";

    #[test]
    fn one_message_passes_however_it_is_cut() {
        for size in 1..=MESSAGE.len() {
            let mut seen = Seen::default();
            assert!(MESSAGE.chunks(size).all(|chunk| seen.take(chunk)), "{size}");
            assert!(seen.take(b""));
        }
    }

    #[test]
    fn the_first_byte_of_a_second_one_does_not() {
        for size in 1..=MESSAGE.len() {
            let mut seen = Seen::default();
            assert!(MESSAGE.chunks(size).all(|chunk| seen.take(chunk)), "{size}");
            assert!(!seen.take(b"\0"), "{size}");
        }
        assert!(!Seen::default().take(&MESSAGE.repeat(2)));
        let mut empty = Seen::default();
        assert!(empty.take(b"\0\0\0\0\0"));
        assert!(!empty.take(b"\0"));
    }
}
