use std::time::Duration;

use h2::Reason;
use tokio::time::Instant;

use super::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Inbound, Outbound, PING, PRIORITY, PUSH_PROMISE,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, go_away,
};

const GOAWAY: u8 = 7;
const EXTENSION: u8 = 0xff;
const WHOLE: u8 = END_HEADERS | END_STREAM;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A connection that has begun.
fn begun() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat()
}

fn inbound() -> Inbound {
    Inbound::new(1000, crate::clock::monotonic())
}

/// The verdict on these frames of a connection that has begun, however its bytes are cut.
fn judged(frames: &[Vec<u8>]) -> Result<(), Reason> {
    let bytes = [begun(), frames.concat()].concat();
    let now = crate::clock::monotonic();
    let mut verdicts = [1, 2, 3, 7, 10, bytes.len()].map(|size| {
        let mut inbound = inbound();
        bytes.chunks(size).try_for_each(|chunk| inbound.read(chunk, now))
    });
    verdicts.sort_by_key(Result::is_ok);
    assert_eq!(verdicts[0], verdicts[5], "the cut does not matter");
    verdicts[0]
}

#[test]
fn a_good_client_passes() {
    let settings = [0, 4, 0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0, 0, 100];
    let frames = [
        frame(SETTINGS, 0, 0, &settings),
        frame(SETTINGS, ACK, 0, &[]),
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        frame(HEADERS, 0, 1, b"fields"),
        frame(CONTINUATION, 0, 1, b"more"),
        frame(CONTINUATION, END_HEADERS, 1, b""),
        frame(PRIORITY, 0, 1, &[0; 5]),
        frame(HEADERS, WHOLE, 7, b"fields"), // ids may be left out
        frame(WINDOW_UPDATE, 0, 7, &[0, 0, 0, 1]),
        frame(RST_STREAM, 0, 7, &[0; 4]),
        frame(RST_STREAM, 0, 7, &[0; 4]),
        frame(DATA, 0, 1, &[0; 300]),
        frame(DATA, 0, 1, b""),
        frame(HEADERS, WHOLE, 1, b"trailers"),
        frame(PING, 0, 0, &[0; 8]),
        frame(PING, ACK, 0, &[0; 8]),
        frame(EXTENSION, 0xff, 0, b"anything"),
        frame(GOAWAY, 0, 0, &[0; 12]),
    ];
    assert_eq!(judged(&frames), Ok(()));
}

#[test]
fn the_first_frame_is_settings() {
    let preface = &begun()[..24];
    for first in [frame(PING, 0, 0, &[0; 8]), frame(HEADERS, WHOLE, 1, b"fields"), frame(SETTINGS, ACK, 0, &[])] {
        let mut inbound = inbound();
        let bytes = [preface, &first].concat();
        assert_eq!(inbound.read(&bytes, crate::clock::monotonic()), Err(Reason::PROTOCOL_ERROR));
        assert!(!inbound.has_preface());
    }
}

#[test]
fn a_connection_has_begun_with_the_head_of_its_settings() {
    let (mut inbound, now) = (inbound(), crate::clock::monotonic());
    let bytes = begun();
    inbound.read(&bytes[..bytes.len() - 1], now).unwrap();
    assert!(!inbound.has_preface());
    inbound.read(&bytes[bytes.len() - 1..], now).unwrap();
    assert!(inbound.has_preface());
}

#[test]
fn lengths_that_are_fixed_are_kept() {
    for (kind, flags, length) in [
        (PRIORITY, 0, 4),
        (RST_STREAM, 0, 3),
        (PING, 0, 6),
        (WINDOW_UPDATE, 0, 3),
        (SETTINGS, 0, 3),
        (SETTINGS, ACK, 6),
    ] {
        let stream = u32::from(kind == PRIORITY || kind == RST_STREAM);
        let wrong = [frame(HEADERS, END_HEADERS, 1, b""), frame(kind, flags, stream, &vec![0; length])];
        assert_eq!(judged(&wrong), Err(Reason::FRAME_SIZE_ERROR), "{kind}");
    }
}

#[test]
fn a_window_does_not_begin_beyond_its_largest_size() {
    let settings = [0, 3, 0, 0, 0, 100, 0, 4, 0x80, 0, 0, 0];
    assert_eq!(judged(&[frame(SETTINGS, 0, 0, &settings)]), Err(Reason::FLOW_CONTROL_ERROR));
}

#[test]
fn a_client_pushes_nothing() {
    assert_eq!(judged(&[frame(PUSH_PROMISE, END_HEADERS, 1, &[0; 4])]), Err(Reason::PROTOCOL_ERROR));
}

#[test]
fn a_field_block_is_in_one_piece() {
    let open = frame(HEADERS, END_STREAM, 1, b"fields");
    for between in [
        frame(DATA, 0, 1, b"data"),
        frame(PING, 0, 0, &[0; 8]),
        frame(HEADERS, WHOLE, 3, b""),
        frame(EXTENSION, 0, 0, b""),
    ] {
        assert_eq!(judged(&[open.clone(), between]), Err(Reason::PROTOCOL_ERROR));
    }
    assert_eq!(judged(&[frame(CONTINUATION, END_HEADERS, 1, b"")]), Err(Reason::PROTOCOL_ERROR));
}

#[test]
fn what_a_client_has_ended_it_does_not_go_on_with() {
    let ends = [
        vec![frame(HEADERS, WHOLE, 1, b"")],
        vec![frame(HEADERS, END_HEADERS, 1, b""), frame(DATA, END_STREAM, 1, b"")],
        vec![frame(HEADERS, END_HEADERS, 1, b""), frame(HEADERS, WHOLE, 1, b"trailers")],
    ];
    for end in ends {
        for late in [frame(DATA, 0, 1, b"late"), frame(HEADERS, WHOLE, 1, b"late")] {
            let others = (1..120).map(|n| frame(HEADERS, END_HEADERS, 1 + 2 * n, b""));
            let frames: Vec<_> = end.iter().cloned().chain(others).chain([late.clone()]).collect();
            assert_eq!(judged(&frames), Err(Reason::STREAM_CLOSED));
            assert_eq!(judged(&[&end[..], &[late]].concat()), Err(Reason::STREAM_CLOSED));
        }
    }
    // What a cancelled call had under way: grpc-java sends it behind the RST_STREAM.
    let cancelled =
        [frame(HEADERS, END_HEADERS, 1, b""), frame(RST_STREAM, 0, 1, &[0; 4]), frame(DATA, END_STREAM, 1, b"late")];
    assert_eq!(judged(&cancelled), Ok(()));
    // Left out or long ago: h2 has its own answer.
    let forgotten = [frame(HEADERS, WHOLE, 1, b""), frame(HEADERS, WHOLE, 1001, b""), frame(DATA, 0, 1, b"")];
    assert_eq!(judged(&forgotten), Ok(()));
    assert_eq!(judged(&[frame(HEADERS, WHOLE, 5, b""), frame(HEADERS, WHOLE, 3, b"")]), Ok(()));
}

/// So many of this frame after another pass, at max 100,000.
fn passed(inbound: &mut Inbound, frame: &[u8], now: Instant) -> usize {
    (0..100_000).take_while(|_| inbound.read(frame, now) != Err(Reason::ENHANCE_YOUR_CALM)).count()
}

#[test]
fn what_brings_no_call_further_floods() {
    for other in [
        frame(PING, 0, 0, &[0; 8]),
        frame(PING, ACK, 0, &[0; 8]),
        frame(SETTINGS, 0, 0, &[]),
        frame(SETTINGS, ACK, 0, &[]),
        frame(PRIORITY, 0, 1, &[0; 5]),
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        frame(RST_STREAM, 0, 1, &[0; 4]),
        frame(DATA, 0, 1, b""),
        frame(EXTENSION, 0, 0, b"anything"),
        frame(GOAWAY, 0, 0, &[0; 8]),
    ] {
        for (later, more) in [(9_999, 0), (10_000, 1000)] {
            let (mut inbound, now) = (inbound(), crate::clock::monotonic());
            inbound.read(&begun(), now).unwrap();
            inbound.read(&other.repeat(999), now).unwrap();
            assert_eq!(passed(&mut inbound, &other, now + Duration::from_millis(later)), more, "{other:?}");
        }
    }
}

/// What a client sends for an answer of some frames: for each of them two WINDOW_UPDATEs and, probing, a PING.
#[test]
fn a_client_may_have_much_to_say_about_each_call() {
    let (mut inbound, now) = (inbound(), crate::clock::monotonic());
    inbound.read(&begun(), now).unwrap();
    for call in 1..100_000 {
        let mut frames = frame(HEADERS, END_HEADERS, 2 * call + 1, b"");
        frames.extend(frame(DATA, END_STREAM, 2 * call + 1, &[0; 300]));
        for _ in 0..13 {
            frames.extend(frame(WINDOW_UPDATE, 0, 2 * call + 1, &[0, 0, 1, 0]));
            frames.extend(frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1, 0]));
            frames.extend(frame(PING, 0, 0, &[0; 8]));
        }
        assert_eq!(inbound.read(&frames, now), Ok(()), "call {call}");
    }
}

/// 100 callers whose deadlines are over, again and again.
#[test]
fn calls_may_all_be_given_up() {
    let (mut inbound, now) = (inbound(), crate::clock::monotonic());
    inbound.read(&begun(), now).unwrap();
    for call in 1..100_000 {
        let frames = [frame(HEADERS, WHOLE, 2 * call + 1, b""), frame(RST_STREAM, 0, 2 * call + 1, &[0, 0, 0, 8])];
        assert_eq!(inbound.read(&frames.concat(), now), Ok(()), "call {call}");
    }
}

/// A quiet connection that asks every second whether we are there.
#[test]
fn a_connection_may_live_long() {
    let (mut inbound, start) = (inbound(), crate::clock::monotonic());
    inbound.read(&begun(), start).unwrap();
    for second in 0..100_000 {
        assert_eq!(inbound.read(&frame(PING, 0, 0, &[0; 8]), start + Duration::from_secs(second)), Ok(()));
    }
}

#[test]
fn the_server_is_between_frames_where_it_is() {
    let bytes = [frame(SETTINGS, 0, 0, &[0; 6]), frame(SETTINGS, ACK, 0, &[]), frame(DATA, 0, 1, b"data")].concat();
    for size in 1..=bytes.len() {
        let (mut outbound, mut written) = (Outbound::default(), 0);
        for chunk in bytes.chunks(size) {
            assert_eq!(outbound.is_between_frames(), [0, 15, 24].contains(&written), "{written} in steps of {size}");
            outbound.write(chunk);
            written += chunk.len();
        }
        assert!(outbound.is_between_frames());
    }
}

#[test]
fn goaway_is_a_frame() {
    let payload = [0, 0, 1, 3, 0, 0, 0, 11];
    assert_eq!(go_away(259, Reason::ENHANCE_YOUR_CALM).to_vec(), frame(GOAWAY, 0, 0, &payload));
}
