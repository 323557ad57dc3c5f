//! Fuzzes the HTTP/2 guard with in-memory streams.

use std::{
    io, iter,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use super::{
    handshakes::PendingHandshakes,
    http2_guard::{ProtocolErrors, guard},
};
use crate::grpc::limit::connection_memory::ConnectionMemory;

/// The control frames that a connection may begin with, and those that each frame of a call adds.
const MAX_CONTROL_FRAMES: u32 = 8;
const DEPOSIT: usize = 20;

/// The length of a frame header and of a GOAWAY frame.
const FRAME_HEADER: usize = 9;
const GO_AWAY: usize = FRAME_HEADER + 8;

/// Fuzzes the frames of a connection: one byte with the size of the chunks, one with the number of bytes that the gateway
/// sends first, these bytes, and the client's.
///
/// The chunks do not matter. The client's bytes pass unchanged if the connection begins with SETTINGS and does not flood.
/// After an error a GOAWAY follows only complete frames.
pub fn http2_frames(data: &[u8]) {
    let [chunk, sent, data @ ..] = data else { return };
    let (outbound, inbound) = data.split_at(usize::from(*sent).min(data.len()));
    let outcome = serve(outbound, inbound, usize::from(*chunk) + 1);
    assert_eq!(outcome.error, serve(outbound, inbound, data.len().max(1)).error, "in one chunk");
    let farewell = outcome.received.strip_prefix(outbound).expect("the gateway's bytes pass unchanged");
    match outcome.error {
        Some(reason) => {
            let expected = if ends_with_frame(outbound) { GO_AWAY } else { 0 };
            assert_eq!(farewell.len(), expected, "{reason:?}");
            assert!(farewell.is_empty() || farewell.ends_with(&u32::from(reason).to_be_bytes()));
        }
        None => {
            assert_eq!(outcome.passed, inbound);
            assert!(farewell.is_empty());
            check_accepted(inbound);
        }
    }
}

/// Checks that accepted frames begin with SETTINGS and have few control frames for their calls.
fn check_accepted(inbound: &[u8]) {
    let headers = || frame_headers(inbound.get(24..).unwrap_or_default());
    assert!(headers().next().is_none_or(|[.., kind, flags, _, _, _, _]| kind == 4 && flags & 1 == 0));
    let control_frames = headers().filter(|[_, _, _, kind, ..]| !matches!(kind, 0 | 1 | 9)).count();
    let call_frames = headers().filter(|[_, _, _, kind, ..]| matches!(kind, 0 | 1)).count();
    let is_empty_data = |header: &[u8; FRAME_HEADER]| header[..5] == [0, 0, 0, 0, 0];
    let floods = headers().filter(is_empty_data).count();
    assert!(control_frames + floods <= MAX_CONTROL_FRAMES as usize + DEPOSIT * call_frames);
}

/// Returns the complete frame headers.
fn frame_headers(mut frames: &[u8]) -> impl Iterator<Item = [u8; FRAME_HEADER]> {
    iter::from_fn(move || {
        let header = *frames.first_chunk::<FRAME_HEADER>()?;
        frames = frames.get(frame_size(header)..).unwrap_or_default();
        Some(header)
    })
}

fn ends_with_frame(mut frames: &[u8]) -> bool {
    while let Some(header) = frames.first_chunk::<FRAME_HEADER>() {
        let Some(rest) = frames.get(frame_size(*header)..) else { return false };
        frames = rest;
    }
    frames.is_empty()
}

fn frame_size([l0, l1, l2, ..]: [u8; FRAME_HEADER]) -> usize {
    FRAME_HEADER + u32::from_be_bytes([0, l0, l1, l2]) as usize
}

/// What became of a connection.
#[derive(Default)]
struct Outcome {
    error: Option<Reason>,
    /// The client's bytes that h2 would see.
    passed: Vec<u8>,
    /// The bytes that the client receives.
    received: Vec<u8>,
}

/// Sends `outbound` and reads `inbound` through the guard.
fn serve(outbound: &[u8], inbound: &[u8], chunk: usize) -> Outcome {
    let mut outcome = Outcome::default();
    let client = Client { sent: inbound, received: &mut outcome.received };
    let meter = opentelemetry::global::meter("fuzz");
    let errors = ProtocolErrors::new(&meter);
    let account = ConnectionMemory::new(usize::MAX, &meter).open(CancellationToken::new(), CancellationToken::new());
    let handshake = PendingHandshakes::default().register(&CancellationToken::new());
    let (mut io, _watch) = guard(client, MAX_CONTROL_FRAMES, errors, handshake, account, Duration::MAX);
    let mut cx = Context::from_waker(Waker::noop());
    for bytes in outbound.chunks(chunk) {
        assert!(
            matches!(Pin::new(&mut io).poll_write(&mut cx, bytes), Poll::Ready(Ok(written)) if written == bytes.len())
        );
    }
    let mut buffer = vec![0; chunk];
    loop {
        let mut buf = ReadBuf::new(&mut buffer);
        match Pin::new(&mut io).poll_read(&mut cx, &mut buf) {
            Poll::Ready(Ok(())) if buf.filled().is_empty() => break,
            Poll::Ready(Ok(())) => outcome.passed.extend_from_slice(buf.filled()),
            Poll::Ready(Err(error)) => {
                let error = error.get_ref().and_then(|error| error.downcast_ref::<h2::Error>());
                outcome.error = error.expect("an error of the guard").reason();
                break;
            }
            Poll::Pending => unreachable!("the client never waits"),
        }
    }
    drop(io);
    outcome
}

/// A client that sends its bytes, ends, and reads everything.
struct Client<'a> {
    sent: &'a [u8],
    received: &'a mut Vec<u8>,
}

impl AsyncRead for Client<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (head, rest) = self.sent.split_at(self.sent.len().min(buf.remaining()));
        buf.put_slice(head);
        self.sent = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().received.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
