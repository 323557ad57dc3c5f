//! Malformed input: a bad request is reset or gets a response, and the next call on the connection is served. If the
//! connection has to be closed, the client gets GOAWAY with an error code (RFC 9113 5.4).

use std::time::Duration;

use tokio::time::timeout;

use crate::harness::{
    Gateway, emulator,
    raw::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY, PUSH_PROMISE, RST_STREAM,
        Received, SETTINGS, WINDOW_UPDATE, call_of, field, frame, preface, save_info, send_until,
    },
    sample,
};

const TIMEOUT: Duration = Duration::from_secs(10);

const PADDED: u8 = 8;
const HAS_PRIORITY: u8 = 0x20;
const COMPLETE: u8 = END_HEADERS | END_STREAM;

const PROTOCOL_ERROR: u32 = 1;
const FRAME_SIZE_ERROR: u32 = 6;

/// The stream of the call after the input.
const NEXT: u32 = 101;

const AUTHORITY: (&str, &str) = (":authority", "a.example:443");

fn has_next(received: &Received) -> bool {
    received.frames.iter().any(|frame| (frame.0, frame.1) == (HEADERS, NEXT))
}

/// Sends each input on a connection of its own, with a call after it. Asserts that the call is served, or that the client
/// gets the expected GOAWAY.
async fn assert_outcomes(inputs: impl IntoIterator<Item = (String, Vec<u8>, Option<u32>)>) {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let next = frame(HEADERS, COMPLETE, NEXT, &call_of("/a/b"));
    for (name, input, go_away) in inputs {
        let bytes = [preface(&[]), input, next.clone()].concat();
        let received = timeout(TIMEOUT, send_until(&gateway.addresses.server, &bytes, has_next)).await;
        let received = received.unwrap_or_else(|_| panic!("{name}: no response and no close"));
        assert_eq!((received.go_away, has_next(&received)), (go_away, go_away.is_none()), "{name}");
    }
    gateway.save(sample()).await.expect("other connections are served");
    assert_eq!(emulator.attempts(), 1, "only the attempt of the good call");
}

/// Returns the input of a request without a body, and with one.
fn requests(name: &str, fields: &[u8], go_away: Option<u32>) -> [(String, Vec<u8>, Option<u32>); 2] {
    let body = [frame(HEADERS, END_HEADERS, 1, fields), frame(DATA, END_STREAM, 1, b"12345")].concat();
    [(name.to_owned(), frame(HEADERS, COMPLETE, 1, fields), go_away), (format!("{name}, with a body"), body, go_away)]
}

fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// Returns the fields of a call, and these.
fn with(extra: &[(&str, &str)]) -> Vec<u8> {
    [save_info(), fields(extra)].concat()
}

/// Returns the pseudo-headers of a request without this one.
fn without(left_out: &str) -> Vec<u8> {
    let all = [(":method", "POST"), (":scheme", "http"), (":path", "/a/b"), (":authority", "localhost")];
    let rest: Vec<_> = all.into_iter().filter(|(name, _)| *name != left_out).collect();
    fields(&rest)
}

fn connect(extra: &[(&str, &str)]) -> Vec<u8> {
    fields(&[&[(":method", "CONNECT")], extra].concat())
}

fn settings(id: u8, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&[0, id][..], &value.to_be_bytes()].concat())
}

#[tokio::test]
async fn malformed_requests_do_not_close_the_connection() {
    let inputs = [
        ("CONNECT", connect(&[AUTHORITY])),
        ("CONNECT without authority", connect(&[])),
        ("CONNECT with content-length 0", connect(&[AUTHORITY, ("content-length", "0")])),
        ("CONNECT with invalid content-length", connect(&[AUTHORITY, ("content-length", "five")])),
        ("CONNECT with two content-lengths", connect(&[AUTHORITY, ("content-length", "0"), ("content-length", "5")])),
        ("CONNECT with a path", connect(&[AUTHORITY, (":path", "/"), (":scheme", "http")])),
        (
            "CONNECT with a path and content-length",
            connect(&[AUTHORITY, (":path", "/"), (":scheme", "http"), ("content-length", "5")]),
        ),
        (
            "CONNECT with a protocol",
            connect(&[AUTHORITY, (":path", "/"), (":scheme", "http"), (":protocol", "websocket")]),
        ),
        ("CONNECT with only a protocol", connect(&[AUTHORITY, (":protocol", "websocket")])),
        ("POST with a protocol", [save_info(), field(":protocol", "websocket")].concat()),
        ("lower-case method", fields(&[(":method", "connect"), AUTHORITY])),
        ("te", with(&[("te", "gzip")])),
        ("connection", with(&[("connection", "close")])),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("upgrade", with(&[("upgrade", "h2c")])),
        ("keep-alive", with(&[("keep-alive", "1")])),
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        ("no path", without(":path")),
        ("no authority", without(":authority")),
        ("empty scheme", fields(&[(":method", "POST"), (":scheme", ""), (":path", "/"), AUTHORITY])),
        ("invalid scheme", fields(&[(":method", "POST"), (":scheme", "h t"), (":path", "/"), AUTHORITY])),
        ("empty path", fields(&[(":method", "POST"), (":scheme", "http"), (":path", ""), AUTHORITY])),
        ("relative path", fields(&[(":method", "POST"), (":scheme", "http"), (":path", "a"), AUTHORITY])),
        ("asterisk path", fields(&[(":method", "POST"), (":scheme", "http"), (":path", "*"), AUTHORITY])),
        ("path with a fragment", fields(&[(":method", "POST"), (":scheme", "http"), (":path", "/a#b"), AUTHORITY])),
        ("path with a space", fields(&[(":method", "POST"), (":scheme", "http"), (":path", "/a b"), AUTHORITY])),
        (
            "invalid authority",
            fields(&[(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a b")]),
        ),
        (
            "authority with user",
            fields(&[(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "u:p@a")]),
        ),
        ("two methods", [field(":method", "POST"), save_info()].concat()),
        ("two paths", [field(":path", "/"), save_info()].concat()),
        ("response pseudo-header", [field(":status", "200"), save_info()].concat()),
        ("late pseudo-header", [field("x", "y"), save_info()].concat()),
        ("no fields", Vec::new()),
        ("content-length that does not parse", with(&[("content-length", "five")])),
        ("content-length with a sign", with(&[("content-length", "+5")])),
        ("content-length over 64 bits", with(&[("content-length", "99999999999999999999")])),
        ("two content-lengths", with(&[("content-length", "1"), ("content-length", "2")])),
        ("content-length too long", with(&[("content-length", "10")])),
        ("content-length too short", with(&[("content-length", "1")])),
        ("header list over the limit", with(&vec![("x", "y"); 1000])),
    ];
    assert_outcomes(inputs.iter().flat_map(|(name, fields)| requests(name, fields, None))).await;
}

/// h2 does not decode any field after these.
#[tokio::test]
async fn invalid_fields_close_the_connection_with_goaway() {
    let inputs = [
        ("upper-case name", with(&[("X-A", "b")])),
        ("empty name", with(&[("", "b")])),
        ("name with a space", with(&[("x a", "b")])),
        ("name with a colon", with(&[("x:a", "b")])),
        ("value with a line end", with(&[("x", "a\nb")])),
        ("value with NUL", with(&[("x", "a\0b")])),
        ("empty method", fields(&[(":method", ""), (":scheme", "http"), (":path", "/"), AUTHORITY])),
        ("invalid method", fields(&[(":method", "P OST"), (":scheme", "http"), (":path", "/"), AUTHORITY])),
        ("unknown pseudo-header", [field(":x", "y"), save_info()].concat()),
        ("invalid index", vec![0xff, 0xff, 0x01]),
        ("index 0", vec![0x80]),
        ("table size over the limit", vec![0x3f, 0xff, 0xff, 0x03]),
        ("truncated field", vec![0, 5, b'x']),
        ("invalid Huffman code", vec![0, 0x84, 0xff, 0xff, 0xff, 0xff, 0]),
    ];
    assert_outcomes(inputs.iter().flat_map(|(name, fields)| requests(name, fields, Some(PROTOCOL_ERROR)))).await;
}

/// h2 resets the one without a body. hyper drops the connection of the other one.
#[tokio::test]
async fn connect_with_content_closes_with_goaway() {
    let fields = connect(&[AUTHORITY, ("content-length", "5")]);
    let [without_body, (name, with_body, _)] = requests("CONNECT", &fields, None);
    assert_outcomes([without_body, (name, with_body, Some(PROTOCOL_ERROR))]).await;
}

#[tokio::test]
async fn unusual_frames_do_not_close_the_connection() {
    let open = frame(HEADERS, END_HEADERS, 1, &save_info());
    let inputs = [
        ("trailers with a pseudo-header", [open.clone(), frame(HEADERS, COMPLETE, 1, &field(":path", "/"))].concat()),
        ("trailers with connection", [open.clone(), frame(HEADERS, COMPLETE, 1, &field("connection", "x"))].concat()),
        (
            "trailers that do not end the stream",
            [open.clone(), frame(HEADERS, END_HEADERS, 1, &field("x", "y"))].concat(),
        ),
        (
            "trailers with content-length",
            [open.clone(), frame(HEADERS, COMPLETE, 1, &field("content-length", "7"))].concat(),
        ),
        ("request after GOAWAY", [frame(GOAWAY, 0, 0, &[0; 8]), frame(HEADERS, COMPLETE, 1, &save_info())].concat()),
        ("GOAWAY with an error", [open.clone(), frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 1])].concat()),
        (
            "HEADERS that depend on themselves",
            frame(HEADERS, COMPLETE | HAS_PRIORITY, 1, &[&[0, 0, 0, 1, 5][..], &save_info()].concat()),
        ),
        ("PRIORITY on itself", frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 5])),
        ("RST_STREAM with an unknown error", [open.clone(), frame(RST_STREAM, 0, 1, &[0xff; 4])].concat()),
        (
            "WINDOW_UPDATE over the limit on a stream",
            [open.clone(), frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff])].concat(),
        ),
        ("SETTINGS with an unknown id", settings(99, 1)),
        ("SETTINGS with window 0 and back", [settings(4, 0), settings(4, 0x7fff_ffff)].concat()),
        ("PING ACK of an unknown PING", frame(PING, 1, 0, &[7; 8])),
        ("unknown frame", frame(0x99, 0xff, 7, b"x")),
    ];
    assert_outcomes(inputs.map(|(name, input)| (name.to_owned(), input, None))).await;
}

#[tokio::test]
async fn invalid_frames_close_the_connection_with_goaway() {
    let open = frame(HEADERS, END_HEADERS, 1, &save_info());
    let inputs = [
        (
            "trailers with an upper-case name",
            [open.clone(), frame(HEADERS, COMPLETE, 1, &field("X", "y"))].concat(),
            PROTOCOL_ERROR,
        ),
        (
            "two GOAWAYs, the second with a higher stream",
            [frame(GOAWAY, 0, 0, &[0; 8]), frame(GOAWAY, 0, 0, &[0, 0, 0, 9, 0, 0, 0, 0])].concat(),
            PROTOCOL_ERROR,
        ),
        ("short GOAWAY", frame(GOAWAY, 0, 0, &[0; 4]), PROTOCOL_ERROR),
        ("GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), PROTOCOL_ERROR),
        ("even stream", frame(HEADERS, COMPLETE, 2, &save_info()), PROTOCOL_ERROR),
        ("stream 0", frame(HEADERS, COMPLETE, 0, &save_info()), PROTOCOL_ERROR),
        (
            "lower stream",
            [frame(HEADERS, COMPLETE, 5, &save_info()), frame(HEADERS, COMPLETE, 3, &save_info())].concat(),
            PROTOCOL_ERROR,
        ),
        ("last stream", frame(HEADERS, COMPLETE, 0x7fff_ffff, &save_info()), PROTOCOL_ERROR),
        ("DATA on an idle stream", frame(DATA, 0, 1, b"x"), PROTOCOL_ERROR),
        ("DATA on stream 0", frame(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
        ("DATA with too much padding", [open.clone(), frame(DATA, PADDED, 1, &[9, 0])].concat(), PROTOCOL_ERROR),
        ("empty DATA with padding", [open.clone(), frame(DATA, PADDED, 1, &[])].concat(), PROTOCOL_ERROR),
        ("HEADERS with too much padding", frame(HEADERS, COMPLETE | PADDED, 1, &[200, 0]), PROTOCOL_ERROR),
        ("HEADERS with a short priority", frame(HEADERS, COMPLETE | HAS_PRIORITY, 1, &[0; 3]), PROTOCOL_ERROR),
        ("PRIORITY on stream 0", frame(PRIORITY, 0, 0, &[0, 0, 0, 1, 5]), PROTOCOL_ERROR),
        ("RST_STREAM on an idle stream", frame(RST_STREAM, 0, 1, &[0; 4]), PROTOCOL_ERROR),
        ("RST_STREAM on stream 0", frame(RST_STREAM, 0, 0, &[0; 4]), PROTOCOL_ERROR),
        ("WINDOW_UPDATE on an idle stream", frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), PROTOCOL_ERROR),
        ("WINDOW_UPDATE of 0", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), PROTOCOL_ERROR),
        (
            "WINDOW_UPDATE of 0 on a stream",
            [open.clone(), frame(WINDOW_UPDATE, 0, 1, &[0; 4])].concat(),
            PROTOCOL_ERROR,
        ),
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), PROTOCOL_ERROR),
        ("SETTINGS ACK that nobody waits for", frame(SETTINGS, 1, 0, &[]).repeat(3), PROTOCOL_ERROR),
        ("SETTINGS with push 2", settings(2, 2), PROTOCOL_ERROR),
        ("SETTINGS with a small frame size", settings(5, 100), PROTOCOL_ERROR),
        ("SETTINGS with a large frame size", settings(5, 0x0100_0000), PROTOCOL_ERROR),
        ("SETTINGS with connect protocol 2", settings(8, 2), PROTOCOL_ERROR),
        ("PING on a stream", frame(PING, 0, 1, &[0; 8]), PROTOCOL_ERROR),
        ("PUSH_PROMISE", frame(PUSH_PROMISE, END_HEADERS, 1, &[0; 4]), PROTOCOL_ERROR),
        ("CONTINUATION without HEADERS", frame(CONTINUATION, END_HEADERS, 1, &[]), PROTOCOL_ERROR),
        (
            "CONTINUATION on another stream",
            [frame(HEADERS, END_STREAM, 1, &save_info()), frame(CONTINUATION, END_HEADERS, 3, &[])].concat(),
            PROTOCOL_ERROR,
        ),
        ("frame over the limit", frame(DATA, 0, 0, &[0; 16_385]), FRAME_SIZE_ERROR),
        ("unknown frame over the limit", frame(0x99, 0, 0, &[0; 16_385]), FRAME_SIZE_ERROR),
        ("HTTP/1.1", b"GET / HTTP/1.1\r\n\r\n".to_vec(), FRAME_SIZE_ERROR),
    ];
    assert_outcomes(inputs.map(|(name, input, go_away)| (name.to_owned(), input, Some(go_away)))).await;
}
