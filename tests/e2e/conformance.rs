//! Rules of RFC 9113 that h2 does not enforce, frame by frame. `tests/conformance.sh` runs a complete suite.

use crate::harness::{
    Gateway, emulator,
    raw::{
        DATA, END_HEADERS, END_STREAM, HEADERS, PING, PUSH_PROMISE, RST_STREAM, Received, SETTINGS, WINDOW_UPDATE,
        field, frame, preface, save_info, send, send_until,
    },
    sample,
};

const COMPLETE: u8 = END_HEADERS | END_STREAM;

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;

/// Sends frames and returns the response, read until `done`. Asserts that nothing reaches SCM and others are served.
async fn response_to(frames: &[Vec<u8>], done: fn(&Received) -> bool) -> Received {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let bytes = [preface(&[]), frames.concat()].concat();
    let received = send_until(&gateway.addresses.server, &bytes, done).await;
    gateway.save(sample()).await.expect("other connections are served");
    assert_eq!(emulator.attempts(), 1, "only the attempt of the good call");
    received
}

/// Returns whether the first stream got a response or was reset, and the connection is open.
fn has_response(received: &Received) -> bool {
    received.alive && received.count(HEADERS) + received.count(RST_STREAM) > 0
}

#[tokio::test]
async fn invalid_frames_close_with_their_error_code() {
    let complete = frame(HEADERS, COMPLETE, 1, &save_info());
    let open = frame(HEADERS, END_HEADERS, 1, &save_info());
    for (frames, reason) in [
        (vec![frame(PING, 0, 0, &[0; 6])], FRAME_SIZE_ERROR),
        (vec![frame(WINDOW_UPDATE, 0, 0, &[0; 3])], FRAME_SIZE_ERROR),
        (vec![frame(SETTINGS, 0, 0, &[0; 3])], FRAME_SIZE_ERROR),
        (vec![open.clone(), frame(DATA, 0, 1, &[0; 16_385])], FRAME_SIZE_ERROR),
        (vec![frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0])], FLOW_CONTROL_ERROR),
        (vec![frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])], FLOW_CONTROL_ERROR),
        (vec![complete.clone(), frame(DATA, END_STREAM, 1, b"late")], STREAM_CLOSED),
        (vec![complete.clone(), complete], STREAM_CLOSED),
        (vec![frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])], PROTOCOL_ERROR),
        (vec![frame(HEADERS, 0, 1, &save_info()), frame(PING, 0, 0, &[0; 8])], PROTOCOL_ERROR),
    ] {
        let received = response_to(&frames, |received| received.alive).await;
        assert_eq!((received.go_away, received.alive), (Some(reason), false), "{:?}", &frames.concat()[..9]);
    }
}

#[tokio::test]
async fn first_frame_must_be_settings() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let preface = &preface(&[])[..24];
    let received = send(&gateway.addresses.server, &[preface, &frame(PING, 0, 0, &[0; 8])].concat()).await;
    assert_eq!((received.go_away, received.alive), (Some(PROTOCOL_ERROR), false));
}

#[tokio::test]
async fn malformed_request_resets_only_its_stream() {
    let connect = field(":method", "CONNECT");
    let [host, leading, trailing] = [("host", "elsewhere"), ("x", " y"), ("x", "y\t")]
        .map(|(name, value)| [save_info(), field(name, value)].concat());
    for fields in [connect, host, leading, trailing] {
        let received = response_to(&[frame(HEADERS, COMPLETE, 1, &fields)], has_response).await;
        assert_eq!((received.reset(1), received.go_away, received.alive), (Some(PROTOCOL_ERROR), None, true));
        assert_eq!(received.count(HEADERS), 0, "no response");
    }
}

/// The wrong length shows only at the end of the body.
#[tokio::test]
async fn length_is_checked_before_the_request_is_rejected() {
    let fields = [(":method", "PUT"), (":scheme", "http"), (":path", "/"), ("content-length", "10")];
    let fields = fields.map(|(name, value)| field(name, value)).concat();
    let frames = [frame(HEADERS, END_HEADERS, 1, &fields), frame(DATA, END_STREAM, 1, b"short")];
    let received = response_to(&frames, has_response).await;
    assert_eq!((received.reset(1), received.count(HEADERS)), (Some(PROTOCOL_ERROR), 0));
}
