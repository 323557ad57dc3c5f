//! Tests of the frame checks and of the control-frame budget.

use std::time::Duration;

use h2::Reason;
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Inbound, Outbound, PING, PRIORITY, PUSH_PROMISE,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, go_away,
};
use crate::grpc::{
    connection::http2_guard::open_streams::OpenStreams,
    limit::connection_memory::{ConnectionMemory, STREAM},
};

const EXTENSION: u8 = 0xff;
const MAX_STREAM: u32 = u32::MAX >> 1;
const END_BOTH: u8 = END_HEADERS | END_STREAM;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Returns the preface and the client's SETTINGS.
fn handshake() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat()
}

fn inbound() -> Inbound {
    let meter = SdkMeterProvider::default().meter("test");
    let account = ConnectionMemory::new(1 << 20, &meter).open(CancellationToken::new(), CancellationToken::new());
    Inbound::new(1000, OpenStreams::new(account), crate::clock::monotonic())
}

/// Checks frames after the handshake, with the bytes split in several ways.
fn check(frames: &[Vec<u8>]) -> Result<(), Reason> {
    let bytes = [handshake(), frames.concat()].concat();
    let now = crate::clock::monotonic();
    let mut results = [1, 2, 3, 7, 10, bytes.len()].map(|size| {
        let mut inbound = inbound();
        bytes.chunks(size).try_for_each(|chunk| inbound.read(chunk, now))
    });
    results.sort_by_key(Result::is_ok);
    assert_eq!(results[0], results[5], "the result must not depend on the split");
    results[0]
}

#[test]
fn valid_frames_pass() {
    let settings = [0, 4, 0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0, 0, 100];
    let frames = [
        frame(SETTINGS, 0, 0, &settings),
        frame(SETTINGS, ACK, 0, &[]),
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        frame(HEADERS, 0, 1, b"fields"),
        frame(CONTINUATION, 0, 1, b"more"),
        frame(CONTINUATION, END_HEADERS, 1, b""),
        frame(PRIORITY, 0, 1, &[0; 5]),
        frame(HEADERS, END_BOTH, 7, b"fields"), // ids may be skipped
        frame(WINDOW_UPDATE, 0, 7, &[0, 0, 0, 1]),
        frame(RST_STREAM, 0, 7, &[0; 4]),
        frame(RST_STREAM, 0, 7, &[0; 4]),
        frame(DATA, 0, 1, &[0; 300]),
        frame(DATA, 0, 1, b""),
        frame(HEADERS, END_BOTH, 1, b"trailers"),
        frame(PING, 0, 0, &[0; 8]),
        frame(PING, ACK, 0, &[0; 8]),
        frame(EXTENSION, 0xff, 0, b"anything"),
        frame(GOAWAY, 0, 0, &[0; 12]),
    ];
    assert_eq!(check(&frames), Ok(()));
}

#[test]
fn the_first_frame_must_be_settings() {
    let preface = &handshake()[..24];
    for first in [frame(PING, 0, 0, &[0; 8]), frame(HEADERS, END_BOTH, 1, b"fields"), frame(SETTINGS, ACK, 0, &[])] {
        let mut inbound = inbound();
        let bytes = [preface, &first].concat();
        assert_eq!(inbound.read(&bytes, crate::clock::monotonic()), Err(Reason::PROTOCOL_ERROR));
        assert!(!inbound.has_preface());
    }
}

#[test]
fn the_preface_ends_with_the_head_of_settings() {
    let (mut inbound, now) = (inbound(), crate::clock::monotonic());
    let bytes = handshake();
    inbound.read(&bytes[..bytes.len() - 1], now).unwrap();
    assert!(!inbound.has_preface());
    inbound.read(&bytes[bytes.len() - 1..], now).unwrap();
    assert!(inbound.has_preface());
}

#[test]
fn fixed_frame_lengths_are_enforced() {
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
        assert_eq!(check(&wrong), Err(Reason::FRAME_SIZE_ERROR), "{kind}");
    }
}

#[test]
fn initial_windows_above_the_maximum_are_rejected() {
    let settings = [0, 3, 0, 0, 0, 100, 0, 4, 0x80, 0, 0, 0];
    assert_eq!(check(&[frame(SETTINGS, 0, 0, &settings)]), Err(Reason::FLOW_CONTROL_ERROR));
}

#[test]
fn a_client_must_not_push() {
    assert_eq!(check(&[frame(PUSH_PROMISE, END_HEADERS, 1, &[0; 4])]), Err(Reason::PROTOCOL_ERROR));
}

#[test]
fn field_blocks_must_be_contiguous() {
    let open = frame(HEADERS, END_STREAM, 1, b"fields");
    for between in [
        frame(DATA, 0, 1, b"data"),
        frame(PING, 0, 0, &[0; 8]),
        frame(HEADERS, END_BOTH, 3, b""),
        frame(EXTENSION, 0, 0, b""),
    ] {
        assert_eq!(check(&[open.clone(), between]), Err(Reason::PROTOCOL_ERROR));
    }
    assert_eq!(check(&[frame(CONTINUATION, END_HEADERS, 1, b"")]), Err(Reason::PROTOCOL_ERROR));
}

#[test]
fn frames_on_half_closed_streams_are_rejected() {
    let ends = [
        vec![frame(HEADERS, END_BOTH, 1, b"")],
        vec![frame(HEADERS, END_HEADERS, 1, b""), frame(DATA, END_STREAM, 1, b"")],
        vec![frame(HEADERS, END_HEADERS, 1, b""), frame(HEADERS, END_BOTH, 1, b"trailers")],
    ];
    for end in ends {
        for late in [frame(DATA, 0, 1, b"late"), frame(HEADERS, END_BOTH, 1, b"late")] {
            let others = (1..120).map(|n| frame(HEADERS, END_HEADERS, 1 + 2 * n, b""));
            let frames: Vec<_> = end.iter().cloned().chain(others).chain([late.clone()]).collect();
            assert_eq!(check(&frames), Err(Reason::STREAM_CLOSED));
            assert_eq!(check(&[&end[..], &[late]].concat()), Err(Reason::STREAM_CLOSED));
        }
    }
    // Frames of a cancelled call: grpc-java sends them after RST_STREAM.
    let cancelled =
        [frame(HEADERS, END_HEADERS, 1, b""), frame(RST_STREAM, 0, 1, &[0; 4]), frame(DATA, END_STREAM, 1, b"late")];
    assert_eq!(check(&cancelled), Ok(()));
    // Skipped or old streams: h2 handles them.
    let forgotten = [frame(HEADERS, END_BOTH, 1, b""), frame(HEADERS, END_BOTH, 1001, b""), frame(DATA, 0, 1, b"")];
    assert_eq!(check(&forgotten), Ok(()));
    assert_eq!(check(&[frame(HEADERS, END_BOTH, 5, b""), frame(HEADERS, END_BOTH, 3, b"")]), Ok(()));
}

#[test]
fn streams_are_open_until_their_last_frame() {
    let memory = ConnectionMemory::new(1 << 20, &SdkMeterProvider::default().meter("test"));
    let account = memory.open(CancellationToken::new(), CancellationToken::new());
    let (empty, now) = (account.used(), crate::clock::monotonic());
    let mut inbound = Inbound::new(1000, OpenStreams::new(account.clone()), now);
    let mut outbound = Outbound::default();
    let streams: Vec<u8> = [1, 3, 5, 7].into_iter().flat_map(|id| frame(HEADERS, END_BOTH, id, b"fields")).collect();
    inbound.read(&[handshake(), streams].concat(), now).unwrap();
    let open = account.used();
    for (received, sent, ended) in [
        (vec![], frame(HEADERS, END_HEADERS, 1, b"head"), 0),
        (vec![], frame(DATA, 0, 1, b"data"), 0),
        (vec![], frame(HEADERS, END_BOTH, 1, b"trailers"), 1),
        (vec![], frame(RST_STREAM, 0, 1, &[0; 4]), 1),
        (vec![], frame(DATA, END_STREAM, 3, b"data"), 2),
        (frame(RST_STREAM, 0, 5, &[0; 4]), vec![], 3),
        (frame(RST_STREAM, 0, 5, &[0; 4]), vec![], 3),
        (frame(HEADERS, END_BOTH, 9, b"fields"), frame(PING, END_STREAM, 0, &[0; 8]), 2),
        (vec![], frame(RST_STREAM, 0, 7, &[0; 4]), 3),
        (vec![], frame(HEADERS, END_BOTH, 9, b"status"), 4),
    ] {
        inbound.read(&received, now).unwrap();
        outbound.write(&sent, |frame| inbound.follow(frame));
        assert_eq!(open - account.used(), ended * STREAM, "{received:?} {sent:?}");
    }
    assert!(account.used() > empty, "h2 does not shrink its buffers");
}

#[test]
fn streams_above_a_sent_goaway_are_ignored() {
    let memory = ConnectionMemory::new(1 << 20, &SdkMeterProvider::default().meter("test"));
    let account = memory.open(CancellationToken::new(), CancellationToken::new());
    let now = crate::clock::monotonic();
    let mut inbound = Inbound::new(1000, OpenStreams::new(account.clone()), now);
    let mut outbound = Outbound::default();
    let open = |ids: [u32; 3]| ids.map(|id| frame(HEADERS, END_BOTH, id, b"fields")).concat();
    inbound.read(&[handshake(), open([1, 3, 5])].concat(), now).unwrap();
    let charged = account.used();
    for (sent, received, ignored, last_stream, expects_go_away) in [
        (go_away(MAX_STREAM, Reason::NO_ERROR), vec![], 0, 5, true), // a drain begins
        (go_away(3, Reason::NO_ERROR), vec![], 1, 3, false),
        (go_away(3, Reason::NO_ERROR), open([7, 9, 11]), 1, 3, false),
        (go_away(1, Reason::NO_ERROR), open([13, 15, 17]), 2, 1, false),
    ] {
        sent.chunks(2).for_each(|chunk| outbound.write(chunk, |frame| inbound.follow(frame)));
        inbound.read(&received, now).unwrap();
        assert_eq!(charged - account.used(), ignored * STREAM, "{sent:?}");
        assert_eq!((inbound.last_stream(), inbound.expects_go_away()), (last_stream, expects_go_away), "{sent:?}");
    }
    outbound.write(&frame(HEADERS, END_BOTH, 1, b"status"), |frame| inbound.follow(frame));
    assert_eq!(charged - account.used(), 3 * STREAM, "no stream is open");
}

/// Returns how many consecutive copies of a frame pass, at most 100,000.
fn count_passed(inbound: &mut Inbound, frame: &[u8], now: Instant) -> usize {
    (0..100_000).take_while(|_| inbound.read(frame, now) != Err(Reason::ENHANCE_YOUR_CALM)).count()
}

#[test]
fn control_frames_are_limited() {
    for control in [
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
        for (millis, expected) in [(9_999, 0), (10_000, 1000)] {
            let (mut inbound, now) = (inbound(), crate::clock::monotonic());
            inbound.read(&handshake(), now).unwrap();
            inbound.read(&control.repeat(999), now).unwrap();
            assert_eq!(
                count_passed(&mut inbound, &control, now + Duration::from_millis(millis)),
                expected,
                "{control:?}"
            );
        }
    }
}

/// A client sends two WINDOW_UPDATEs for each frame of a response and, when it probes the bandwidth, a PING.
#[test]
fn window_updates_and_pings_of_calls_pass() {
    let (mut inbound, now) = (inbound(), crate::clock::monotonic());
    inbound.read(&handshake(), now).unwrap();
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

/// For example, 100 callers that exceed their deadlines again and again.
#[test]
fn all_calls_may_be_cancelled() {
    let (mut inbound, now) = (inbound(), crate::clock::monotonic());
    inbound.read(&handshake(), now).unwrap();
    for call in 1..100_000 {
        let frames = [frame(HEADERS, END_BOTH, 2 * call + 1, b""), frame(RST_STREAM, 0, 2 * call + 1, &[0, 0, 0, 8])];
        assert_eq!(inbound.read(&frames.concat(), now), Ok(()), "call {call}");
    }
}

/// An idle connection with a keep-alive PING every second.
#[test]
fn long_lived_idle_connections_pass() {
    let (mut inbound, start) = (inbound(), crate::clock::monotonic());
    inbound.read(&handshake(), start).unwrap();
    for second in 0..100_000 {
        assert_eq!(inbound.read(&frame(PING, 0, 0, &[0; 8]), start + Duration::from_secs(second)), Ok(()));
    }
}

#[test]
fn frame_boundaries_of_the_output_are_tracked() {
    let bytes = [
        frame(SETTINGS, 0, 0, &[0; 6]),
        frame(SETTINGS, ACK, 0, &[]),
        frame(DATA, 0, 1, b"data"),
        frame(GOAWAY, 0, 0, &[0; 8]),
        frame(GOAWAY, 0, 0, &[0; 3]),
    ]
    .concat();
    for size in 1..=bytes.len() {
        let mut outbound = Outbound::default();
        let mut written = 0;
        for chunk in bytes.chunks(size) {
            assert_eq!(
                outbound.is_between_frames(),
                [0, 15, 24, 37, 54].contains(&written),
                "{written} in steps of {size}"
            );
            outbound.write(chunk, |_| {});
            written += chunk.len();
        }
        assert!(outbound.is_between_frames());
    }
}

#[test]
fn goaway_is_a_valid_frame() {
    let payload = [0, 0, 1, 3, 0, 0, 0, 11];
    assert_eq!(go_away(259, Reason::ENHANCE_YOUR_CALM).to_vec(), frame(GOAWAY, 0, 0, &payload));
}
