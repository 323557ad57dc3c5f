//! Decompresses gzip requests, of which tonic's decoder would read only the first member (RFC 1952 2.2 allows several).
//!
//! The message is passed on uncompressed. Other encodings are left to tonic, which rejects them.

use std::{
    io::Read as _,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use flate2::bufread::MultiGzDecoder;
use http::{HeaderName, Request, Response};
use hyper::body::{self, Frame};
use tonic::{Status, body::Body};
use tower::{BoxError, Layer, Service, layer::layer_fn};

use super::{message_size, unary_body::PREFIX};
use crate::{
    error::Error,
    grpc::routes::{BUILTIN_PREFIX, MAX_BUILTIN_REQUEST, REFLECTION_PREFIX},
};

const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// The flag of a compressed message in its prefix (gRPC over HTTP/2, "Messages").
const COMPRESSED: u8 = 1;

/// A service whose gzip requests are decompressed.
#[derive(Clone)]
pub(in crate::grpc) struct Decompress<S> {
    inner: S,
    max_message_size: usize,
}

impl<S> Decompress<S> {
    pub(in crate::grpc) fn layer(max_message_size: usize) -> impl Layer<S, Service = Self> + Clone {
        layer_fn(move |inner| Self { inner, max_message_size })
    }

    /// Returns the decompression of a request, or `None` if its encoding is not gzip.
    fn gunzip<B>(&self, request: &Request<B>) -> Option<Box<Gunzip>> {
        if request.headers().get(ENCODING)? != "gzip" {
            return None;
        }
        let path = request.uri().path();
        let limit = if path.starts_with(BUILTIN_PREFIX) { MAX_BUILTIN_REQUEST } else { self.max_message_size };
        Some(Box::new(Gunzip::new(limit, path.starts_with(REFLECTION_PREFIX))))
    }
}

impl<S, B> Service<Request<B>> for Decompress<S>
where
    S: Service<Request<DecompressedBody<B>>, Response = Response<Body>, Error = Error>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let gunzip = self.gunzip(&request);
        self.inner.call(request.map(|inner| DecompressedBody { inner, gunzip }))
    }
}

/// A request body whose gzip messages are decompressed. Trailers of a gzip request are dropped; gRPC has none.
pub struct DecompressedBody<B> {
    inner: B,
    /// `None` for a body that passes unchanged.
    gunzip: Option<Box<Gunzip>>,
}

#[cfg(any(test, fuzzing))]
impl<B> DecompressedBody<B> {
    /// Creates the body of a unary call. With a limit, it is gzip.
    pub(in crate::grpc) fn unary(inner: B, limit: Option<usize>) -> Self {
        Self { inner, gunzip: limit.map(|limit| Box::new(Gunzip::new(limit, false))) }
    }
}

impl<B> body::Body for DecompressedBody<B>
where
    B: body::Body<Data = Bytes, Error = BoxError> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let Some(gunzip) = &mut this.gunzip else {
            return Pin::new(&mut this.inner).poll_frame(cx);
        };
        loop {
            match gunzip.next_message() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(Frame::data(message)))),
                Ok(None) if gunzip.ended => return Poll::Ready(None),
                Ok(None) => {}
                Err(status) => return Poll::Ready(Some(Err(status.into()))),
            }
            match ready!(Pin::new(&mut this.inner).poll_frame(cx)).transpose()? {
                Some(frame) => frame.into_data().into_iter().for_each(|data| gunzip.received.extend_from_slice(&data)),
                None => gunzip.ended = true,
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.gunzip.as_ref().is_none_or(|gunzip| gunzip.received.is_empty()) && self.inner.is_end_stream()
    }
}

/// The decompression of the messages of one request.
struct Gunzip {
    /// The largest message in bytes, both compressed and decompressed.
    limit: usize,
    is_stream: bool,
    /// Bytes that have not been passed on.
    received: BytesMut,
    /// Whether all bytes have been received.
    ended: bool,
}

impl Gunzip {
    fn new(limit: usize, is_stream: bool) -> Self {
        Self { limit, is_stream, received: BytesMut::new(), ended: false }
    }

    /// Takes the next message, decompressed. At the end of the request takes an incomplete message, which tonic rejects.
    ///
    /// The message of a unary call is taken at the end of the request, because the quota is charged only with its
    /// compressed size: a caller could otherwise hold the decompressed message by not ending the request.
    fn next_message(&mut self) -> Result<Option<Bytes>, Status> {
        let Some([flag, length @ ..]) = self.received.first_chunk::<PREFIX>() else {
            return Ok(self.take_rest());
        };
        let (flag, length) = (*flag, u32::from_be_bytes(*length) as usize);
        if length > self.limit {
            return Err(message_size::exceeded());
        }
        if self.received.len() < PREFIX + length {
            return Ok(self.take_rest());
        }
        if !self.is_stream && !self.ended {
            return Ok(None);
        }
        let message = self.received.split_to(PREFIX + length).freeze();
        if flag == COMPRESSED { decompress(&message[PREFIX..], self.limit).map(Some) } else { Ok(Some(message)) }
    }

    /// Takes what is left at the end of the request.
    fn take_rest(&mut self) -> Option<Bytes> {
        (self.ended && !self.received.is_empty()).then(|| self.received.split().freeze())
    }
}

/// Decompresses all gzip members to one length-prefixed message of at most `limit` bytes.
fn decompress(members: &[u8], limit: usize) -> Result<Bytes, Status> {
    let mut message = vec![0; PREFIX];
    MultiGzDecoder::new(members)
        .take(limit as u64 + 1)
        .read_to_end(&mut message)
        .map_err(|_| Status::internal("the message must be complete gzip, with no bytes after the last member"))?;
    let length = message.len() - PREFIX;
    let length = u32::try_from(length).ok().filter(|_| length <= limit).ok_or_else(message_size::exceeded)?;
    message[1..PREFIX].copy_from_slice(&length.to_be_bytes());
    Ok(message.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use bytes::Bytes;
    use flate2::{Compression, write::GzEncoder};
    use futures_util::{FutureExt as _, StreamExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};
    use hyper::body::Frame;
    use tonic::{Code, Status};
    use tower::BoxError;

    use super::{DecompressedBody, Gunzip, decompress};

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        [&[flag], &(message.len() as u32).to_be_bytes()[..], message].concat()
    }

    #[test]
    fn all_members_are_one_message() {
        let members: [&[&[u8]]; 5] = [&[b"abc"], &[b"ab", b"c"], &[b"", b"abc", b""], &[b"a", b"b", b"c"], &[b""]];
        for members in members {
            let compressed = members.iter().flat_map(|member| gzip(member)).collect::<Vec<_>>();
            let expected = framed(0, &members.concat());
            assert_eq!(decompress(&compressed, 3).unwrap(), expected, "{members:?}");
        }
        let many = [gzip(b"").repeat(10_000), gzip(b"abc")].concat();
        assert_eq!(decompress(&many, 3).unwrap(), framed(0, b"abc"));
    }

    #[test]
    fn the_size_of_all_members_is_limited() {
        for members in [&[gzip(b"abcd")][..], &[gzip(b"abc"), gzip(b"d")], &[gzip(b""), gzip(&[0; 1 << 20])]] {
            assert_eq!(decompress(&members.concat(), 3).unwrap_err().code(), Code::ResourceExhausted);
        }
    }

    #[test]
    fn anything_except_complete_members_is_rejected() {
        let good = gzip(b"abc");
        let rejected = |compressed: &[u8]| {
            let code = decompress(compressed, 6).map_err(|status| status.code());
            assert_eq!(code, Err(Code::Internal), "{compressed:?}");
        };
        for tail in [&b"\0"[..], &[0; 64], b"x", b"\x1f", b"\x1f\x8b\x08", b"garbage after the last member"] {
            rejected(&[&good, tail].concat());
        }
        for length in 0..good.len() {
            rejected(&good[..length]);
            if length > 0 {
                rejected(&[&good, &good[..length]].concat());
            }
        }
        // The last eight bytes of a member are its checksum and its length.
        for at in good.len() - 8..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            rejected(&bad);
            rejected(&[&bad[..], &good].concat());
            rejected(&[&good[..], &bad].concat());
        }
    }

    /// Returns the messages of a body that arrives in chunks, with a limit of 64 bytes.
    async fn messages(chunks: impl Iterator<Item = Vec<u8>>, is_stream: bool) -> Result<Vec<Bytes>, Code> {
        let frames = stream::iter(chunks.map(|chunk| Ok::<_, BoxError>(Frame::data(Bytes::from(chunk)))));
        let gunzip = Some(Box::new(Gunzip::new(64, is_stream)));
        let mut body = DecompressedBody { inner: StreamBody::new(frames), gunzip };
        let mut messages = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| error.downcast::<Status>().unwrap().code())?;
            messages.push(frame.into_data().unwrap());
        }
        Ok(messages)
    }

    #[tokio::test]
    async fn messages_are_read_in_any_chunks() {
        let sent = [framed(1, &[gzip(b"a"), gzip(b"b")].concat()), framed(0, b"c"), framed(1, &gzip(b""))].concat();
        let received = [framed(0, b"ab"), framed(0, b"c"), framed(0, b"")];
        for size in 1..=sent.len() {
            let chunks = || sent.chunks(size).map(<[u8]>::to_vec);
            assert_eq!(messages(chunks(), true).await.unwrap(), received, "{size}");
            assert_eq!(messages(chunks(), false).await.unwrap(), received, "{size}");
        }
    }

    #[tokio::test]
    async fn what_is_no_complete_message_is_left_to_tonic() {
        let compressed = framed(1, &gzip(b"a"));
        for rest in [&compressed[..3], &compressed[..compressed.len() - 1], &framed(2, b"unknown flag")] {
            assert_eq!(messages([rest.to_vec()].into_iter(), false).await.unwrap(), [rest]);
        }
        assert_eq!(messages([].into_iter(), false).await.unwrap(), Vec::<Bytes>::new());
    }

    #[tokio::test]
    async fn a_length_over_the_limit_fails_at_once() {
        for flag in [0, 1] {
            let result = messages([framed(flag, &[0; 65])[..5].to_vec()].into_iter(), false).await;
            assert_eq!(result, Err(Code::ResourceExhausted));
        }
    }

    #[test]
    fn a_unary_message_is_decompressed_at_the_end_of_the_request() {
        for is_stream in [false, true] {
            let start = stream::iter([Ok::<_, BoxError>(Frame::data(Bytes::from(framed(1, &gzip(b"a")))))]);
            let inner = StreamBody::new(start.chain(stream::pending()));
            let mut body = DecompressedBody { inner, gunzip: Some(Box::new(Gunzip::new(64, is_stream))) };
            assert_eq!(body.frame().now_or_never().is_some(), is_stream);
        }
    }
}
