//! Enforces that a unary call has one message: the call fails before it is carried out.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tonic::Status;
use tower::BoxError;

/// The length of a message's prefix: one byte of flags and four of length (gRPC over HTTP/2, "Messages").
pub(super) const PREFIX: usize = 5;

/// A request body that errors on the first byte of a second message.
///
/// After a reset it stays pending, because hyper polls for resets and drops the call itself. Otherwise a call that its
/// client cancels before the end of the request would count as failed.
pub struct UnaryBody<B> {
    inner: B,
    /// `None` for a stream of messages.
    framing: Option<MessageFraming>,
}

/// The position in the length-prefixed message.
#[derive(Debug, Default)]
struct MessageFraming {
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that have arrived.
    filled: usize,
    /// Bytes of the message that are still to come.
    remaining: usize,
}

impl MessageFraming {
    /// Consumes the next bytes. Returns false if they begin a second message.
    fn consume(&mut self, data: &[u8]) -> bool {
        let (prefix, rest) = data.split_at((PREFIX - self.filled).min(data.len()));
        if !prefix.is_empty() {
            self.prefix[self.filled..self.filled + prefix.len()].copy_from_slice(prefix);
            self.filled += prefix.len();
            let [_, length @ ..] = self.prefix;
            self.remaining = u32::from_be_bytes(length) as usize;
        }
        if self.filled < PREFIX {
            return true;
        }
        let fits = rest.len() <= self.remaining;
        self.remaining = self.remaining.saturating_sub(rest.len());
        fits
    }
}

impl<B> UnaryBody<B> {
    /// Creates the body of a unary call.
    pub(in crate::grpc) fn unary(inner: B) -> Self {
        Self { inner, framing: Some(MessageFraming::default()) }
    }

    /// Creates the body of a streaming call, which may have any number of messages.
    pub(in crate::grpc) fn stream(inner: B) -> Self {
        Self { inner, framing: None }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for UnaryBody<B>
where
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        let Some(framing) = &mut this.framing else {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        };
        match frame {
            Some(Ok(frame)) if frame.data_ref().is_none_or(|data| framing.consume(data)) => {
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Ok(_)) => {
                let second = Status::unimplemented("a unary call has exactly one message");
                Poll::Ready(Some(Err(second.into())))
            }
            None if this.inner.is_end_stream() => Poll::Ready(None),
            Some(Err(_)) | None => Poll::Pending,
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
    use super::MessageFraming;

    const MESSAGE: &[u8] = b"\0\0\0\0\x03abc";

    #[test]
    fn one_message_passes_in_any_chunks() {
        for size in 1..=MESSAGE.len() {
            let mut framing = MessageFraming::default();
            assert!(MESSAGE.chunks(size).all(|chunk| framing.consume(chunk)), "{size}");
            assert!(framing.consume(b""));
        }
    }

    #[test]
    fn the_first_byte_of_a_second_message_fails() {
        for size in 1..=MESSAGE.len() {
            let mut framing = MessageFraming::default();
            assert!(MESSAGE.chunks(size).all(|chunk| framing.consume(chunk)), "{size}");
            assert!(!framing.consume(b"\0"), "{size}");
        }
        assert!(!MessageFraming::default().consume(&MESSAGE.repeat(2)));
        let mut empty = MessageFraming::default();
        assert!(empty.consume(b"\0\0\0\0\0"));
        assert!(!empty.consume(b"\0"));
    }
}
