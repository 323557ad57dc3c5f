//! RFC 9113 beyond what h2 keeps by itself, frame by frame. `tests/conformance.sh` runs a whole suite.

use crate::harness::{
    Gateway, emulator,
    raw::{
        DATA, END_HEADERS, END_STREAM, HEADERS, Heard, PING, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE,
        beginning, field, frame, save_info, send, send_until,
    },
    sample,
};

const WHOLE: u8 = END_HEADERS | END_STREAM;

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;

/// What a gateway says to these frames until it is enough. Nothing of them reaches SCM, and nothing hurts others.
async fn heard(frames: &[Vec<u8>], enough: fn(&Heard) -> bool) -> Heard {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let bytes = [beginning(&[]), frames.concat()].concat();
    let heard = send_until(&gateway.addresses.server, &bytes, enough).await;
    gateway.save(sample()).await.expect("other connections are served");
    assert_eq!(emulator.attempts(), 1, "the good call's");
    heard
}

/// The first stream is answered or reset, and the connection lives.
fn answered(heard: &Heard) -> bool {
    heard.lives && heard.count(HEADERS) + heard.count(RST_STREAM) > 0
}

#[tokio::test]
async fn a_frame_against_the_rules_ends_the_connection_with_its_reason() {
    let whole = frame(HEADERS, WHOLE, 1, &save_info());
    let open = frame(HEADERS, END_HEADERS, 1, &save_info());
    for (frames, reason) in [
        (vec![frame(PING, 0, 0, &[0; 6])], FRAME_SIZE_ERROR),
        (vec![frame(WINDOW_UPDATE, 0, 0, &[0; 3])], FRAME_SIZE_ERROR),
        (vec![frame(SETTINGS, 0, 0, &[0; 3])], FRAME_SIZE_ERROR),
        (vec![open.clone(), frame(DATA, 0, 1, &[0; 16_385])], FRAME_SIZE_ERROR),
        (vec![frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0])], FLOW_CONTROL_ERROR),
        (vec![frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])], FLOW_CONTROL_ERROR),
        (vec![whole.clone(), frame(DATA, END_STREAM, 1, b"late")], STREAM_CLOSED),
        (vec![whole.clone(), whole], STREAM_CLOSED),
        (vec![frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])], PROTOCOL_ERROR),
        (vec![frame(HEADERS, 0, 1, &save_info()), frame(PING, 0, 0, &[0; 8])], PROTOCOL_ERROR),
    ] {
        let heard = heard(&frames, |heard| heard.lives).await;
        assert_eq!((heard.go_away, heard.lives), (Some(reason), false), "{:?}", &frames.concat()[..9]);
    }
}

#[tokio::test]
async fn a_connection_begins_with_settings() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let preface = &beginning(&[])[..24];
    let heard = send(&gateway.addresses.server, &[preface, &frame(PING, 0, 0, &[0; 8])].concat()).await;
    assert_eq!((heard.go_away, heard.lives), (Some(PROTOCOL_ERROR), false));
}

#[tokio::test]
async fn a_malformed_request_is_reset_and_the_connection_lives() {
    let connect = field(":method", "CONNECT");
    let [host, leading, trailing] = [("host", "elsewhere"), ("x", " y"), ("x", "y\t")]
        .map(|(name, value)| [save_info(), field(name, value)].concat());
    for fields in [connect, host, leading, trailing] {
        let heard = heard(&[frame(HEADERS, WHOLE, 1, &fields)], answered).await;
        assert_eq!((heard.reset(1), heard.go_away, heard.lives), (Some(PROTOCOL_ERROR), None, true));
        assert_eq!(heard.count(HEADERS), 0, "no answer");
    }
}

/// Its length is not what it said: seen only at its end.
#[tokio::test]
async fn a_request_that_would_be_refused_is_heard_out_first() {
    let fields = [(":method", "PUT"), (":scheme", "http"), (":path", "/"), ("content-length", "10")];
    let fields = fields.map(|(name, value)| field(name, value)).concat();
    let whole = [frame(HEADERS, END_HEADERS, 1, &fields), frame(DATA, END_STREAM, 1, b"short")];
    let heard = heard(&whole, answered).await;
    assert_eq!((heard.reset(1), heard.count(HEADERS)), (Some(PROTOCOL_ERROR), 0));
}
