//! Fuzzes what callers send: headers and the request message.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue};
use hyper::body::{self, Frame};
use prost::Message as _;
use tonic::{Status, Streaming, codec::Codec as _};
use tonic_prost::ProstCodec;

use super::{
    auth::{AccessPolicy, Caller, peer::Peer},
    context::CallContext,
    dry_run::DryRun,
    layer::{deadline, decompress::DecompressedBody, unary_body::UnaryBody},
    status,
};
use crate::{
    clock,
    config::XfccElements,
    proto::SaveInfoRequest,
    scm::api::{methods::SaveInfo, translate},
    validate::{self, identity},
};

pub use super::connection::fuzz::http2_frames;

/// The largest message in bytes.
const MAX_MESSAGE: usize = 4096;

/// Fuzzes the body of a unary call, with one byte before it: the size of the chunks, and in the highest bit whether the
/// encoding is gzip. The chunks do not matter, and a message is received exactly if it is the only one, and complete.
pub fn request_message(data: &[u8]) {
    let Some((options, body)) = data.split_first() else { return };
    let is_gzip = options & 0x80 != 0;
    let received = receive(body, usize::from(options & 0x7f) + 1, is_gzip);
    assert_eq!(received, receive(body, body.len().max(1), is_gzip), "in one chunk");
    if !(is_gzip && body.first() == Some(&1)) {
        assert_eq!(received, uncompressed(body));
    }
    if let Some(request) = received {
        assert!(request.encoded_len() <= MAX_MESSAGE);
        check_request(request);
    }
}

/// Returns the message as the gateway receives it, or `None` if the call fails.
fn receive(body: &[u8], chunk: usize, is_gzip: bool) -> Option<SaveInfoRequest> {
    let body = UnaryBody::unary(Chunks(body.chunks(chunk).map(Bytes::copy_from_slice).collect()));
    let body = DecompressedBody::unary(body, is_gzip.then_some(MAX_MESSAGE));
    let decoder = ProstCodec::<(), _>::default().decoder();
    let mut messages = Streaming::new_request(decoder, body, None, Some(MAX_MESSAGE));
    let message = async {
        let message = messages.message().await?;
        messages.trailers().await?; // reads to the end, as tonic's server does
        Ok::<_, Status>(message)
    };
    message.now_or_never().expect("a complete request is never waited for").ok()?
}

/// Returns the message of a body that is exactly one uncompressed message.
fn uncompressed(body: &[u8]) -> Option<SaveInfoRequest> {
    let ([0, length @ ..], message) = body.split_first_chunk::<5>()? else { return None };
    let is_complete = u32::from_be_bytes(*length) as usize == message.len() && message.len() <= MAX_MESSAGE;
    is_complete.then(|| SaveInfoRequest::decode(message).ok())?
}

/// Checks that a valid request stays valid and unchanged once it is normalized, and that the error of another is small.
fn check_request(request: SaveInfoRequest) {
    match validate::check(request) {
        Ok(checked) => {
            let sent = translate::<SaveInfo>(&checked);
            assert!(sent.path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.~%".contains(&byte)));
            assert!(serde_json::from_slice::<serde_json::Value>(&sent.body).is_ok_and(|body| body.is_object()));
            let again = validate::check((*checked).clone()).expect("a normalized request is valid");
            assert_eq!(sent.body, translate::<SaveInfo>(&again).body);
        }
        Err(error) => assert!(status::render(&error).message().len() < MAX_MESSAGE),
    }
}

/// A body in chunks.
struct Chunks(VecDeque<Bytes>);

impl body::Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

/// Fuzzes `grpc-timeout`: it is parsed exactly if it has the form of the gRPC specification, and never overflows a
/// deadline.
pub fn grpc_timeout(data: &[u8]) {
    const MAX: Duration = Duration::from_secs(99_999_999 * 3600);
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let headers = HeaderMap::from_iter([(HeaderName::from_static("grpc-timeout"), value)]);
    let is_valid = match data {
        [digits @ .., b'H' | b'M' | b'S' | b'm' | b'u' | b'n'] => {
            (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    };
    let timeout = deadline::grpc_timeout(&headers).ok().map(|timeout| timeout.expect("the header is there"));
    assert_eq!(timeout.is_some(), is_valid);
    if let Some(timeout) = timeout {
        let arrived = clock::monotonic();
        let call = CallContext::new(arrived, opentelemetry::Context::new(), Caller::default(), DryRun::No);
        call.set_timeout(timeout);
        assert!(timeout <= MAX && call.remaining().is_some_and(|remaining| remaining <= timeout));
        assert!(call.deadline(Duration::MAX) <= arrived + timeout);
    }
}

/// Fuzzes `x-forwarded-client-cert`, one header for each line: the identity has the form of one, and no text that a
/// client chooses changes the identity that the sidecar writes after it.
pub fn forwarded_client_cert(data: &[u8]) {
    const HEADER: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
    const SIDECAR: &str = "spiffe://example.org/sidecar";
    let peer = Peer::Forwarded(Arc::new(AccessPolicy::default()), XfccElements::Last);
    let identity = |values: &[&[u8]]| {
        let values = values.iter().filter_map(|value| HeaderValue::from_bytes(value).ok());
        let caller = peer.caller(&values.map(|value| (HEADER, value)).collect());
        caller.identity().map(|identity| identity.to_string())
    };
    let lines: Vec<_> = data.split(|byte| *byte == b'\n').collect();
    if let Some(identity) = identity(&lines) {
        let is_uri = identity::uri(&identity).as_ref() == Some(&identity);
        assert!(is_uri || identity::dns_name(&identity).as_ref() == Some(&identity));
    }
    let appended = [lines[0], b",By=x;URI=", SIDECAR.as_bytes()].concat();
    assert!(identity(&[&appended]).is_none_or(|identity| identity == SIDECAR));
    let escaped =
        lines[0].iter().flat_map(|byte| if b"\"\\".contains(byte) { vec![b'\\', *byte] } else { vec![*byte] });
    let escaped: Vec<u8> = escaped.collect();
    let subject = [b"Hash=0;Subject=\"", &escaped[..], b"\";URI=", SIDECAR.as_bytes()].concat();
    if HeaderValue::from_bytes(&subject).is_ok() && str::from_utf8(&subject).is_ok() {
        assert_eq!(identity(&[&subject]).as_deref(), Some(SIDECAR));
    }
}
