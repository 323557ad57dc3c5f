//! Floods by one client, one test each. The binary uses at most 16 MiB more memory, and serves other clients meanwhile.

use std::time::Duration;

use prost::Message as _;
use scm_emulator::Emulator;
use tokio::time::timeout;

use crate::harness::{
    client, emulator, framed,
    process::Process,
    raw::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RST_STREAM, Received, SETTINGS,
        WINDOW_UPDATE, call_of, field, frame, preface, save_info, send_until,
    },
    sample, value_of,
};

/// The most memory that a flood may cost, in KiB.
const MAX_GROWTH: u64 = 16 * 1024;

/// The longest duration of a flood, on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

const ENHANCE_YOUR_CALM: Option<u32> = Some(11);
const REFUSED_STREAM: Option<u32> = Some(7);

/// Returns the id of the n-th stream of a client.
fn stream(n: u32) -> u32 {
    2 * n + 1
}

/// A gateway in its own process.
struct Flooded {
    emulator: Emulator,
    process: Process,
}

impl Flooded {
    async fn new() -> Self {
        let emulator = emulator().await;
        let process = Process::start(&emulator.endpoint(), &[]).await;
        Self { emulator, process }
    }

    /// Sends bytes and reads until `done`, while another client makes calls.
    async fn flood(&self, bytes: Vec<u8>, done: fn(&Received) -> bool) -> Received {
        let mut client = client(&self.process.address).await;
        for _ in 0..20 {
            client.save_info(sample()).await.unwrap();
        }
        let before = self.process.peak_memory();
        let attempts = self.emulator.attempts();
        let address = self.process.address.clone();
        let flood = tokio::spawn(async move {
            timeout(TIMEOUT, send_until(&address, &bytes, done)).await.expect("the flood ends in time")
        });
        let mut calls = 0;
        let mut finished = false;
        while !finished {
            finished = flood.is_finished();
            client.save_info(sample()).await.expect("other clients are served");
            calls += 1;
        }
        let received = flood.await.unwrap();
        let grown = self.process.peak_memory() - before;
        assert!(grown <= MAX_GROWTH, "{grown} KiB more");
        assert_eq!(self.emulator.attempts() - attempts, calls, "the flood did not reach SCM");
        received
    }
}

/// Sends frames after the preface.
async fn flood(frames: &[u8]) -> Received {
    Flooded::new().await.flood([&preface(&[]), frames].concat(), |received| received.alive).await
}

/// Asserts that these frames close the connection and count as a flood.
async fn assert_closed(frames: &[u8]) {
    let flooded = Flooded::new().await;
    let received = flooded.flood([&preface(&[]), frames].concat(), |received| received.alive).await;
    assert_eq!((received.go_away, received.alive), (ENHANCE_YOUR_CALM, false), "{:?}", received.frames.len());
    let counted = async {
        let floods = "scm_gateway_connections_protocol_errors_total{reason=\"flood\"";
        while value_of::<u64>(&flooded.process.metrics().await, floods) == 0 {}
    };
    timeout(TIMEOUT, counted).await.expect("the flood is counted");
}

#[tokio::test]
async fn pings() {
    assert_closed(&frame(PING, 0, 0, &[0; 8]).repeat(50_000)).await;
}

#[tokio::test]
async fn settings() {
    assert_closed(&frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]).repeat(50_000)).await;
}

#[tokio::test]
async fn priorities() {
    assert_closed(&frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16]).repeat(50_000)).await;
}

#[tokio::test]
async fn window_updates() {
    assert_closed(&frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(50_000)).await;
}

#[tokio::test]
async fn empty_data() {
    let call = frame(HEADERS, END_HEADERS, 1, &save_info());
    assert_closed(&[call, frame(DATA, 0, 1, b"").repeat(50_000)].concat()).await;
}

#[tokio::test]
async fn continuations() {
    let call = frame(HEADERS, 0, 1, &save_info());
    assert_closed(&[call.clone(), frame(CONTINUATION, 0, 1, &field("x", "y").repeat(2000)).repeat(5000)].concat())
        .await;
    assert_closed(&[call, frame(CONTINUATION, 0, 1, b"").repeat(50_000)].concat()).await;
}

/// Half of the calls are complete.
#[tokio::test]
async fn rapid_resets() {
    let message = framed(0, &sample().encode_to_vec());
    let call = |n| {
        let data = if n % 2 == 0 { frame(DATA, END_STREAM, stream(n), &message) } else { Vec::new() };
        let headers = frame(HEADERS, END_HEADERS, stream(n), &save_info());
        [headers, data, frame(RST_STREAM, 0, stream(n), &[0, 0, 0, 8])]
    };
    let frames: Vec<u8> = (0..50_000).flat_map(call).flatten().collect();
    let received = flood(&frames).await;
    assert!(received.alive || received.go_away == ENHANCE_YOUR_CALM, "{:?}", received.go_away);
}

/// A field of 4,000 bytes enters the dynamic table, and each further byte refers to the field.
#[tokio::test]
async fn hpack_bombs() {
    let mut first = save_info();
    first.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]); // 4,000 as an integer of RFC 7541 5.1
    first.extend([b'y'; 4000]);
    let bombs = |times| {
        let bomb = |n| [if n == 0 { first.clone() } else { save_info() }, vec![0x80 | 62; times]].concat();
        (0..100).flat_map(|n| frame(HEADERS, END_HEADERS, stream(n), &bomb(n))).collect::<Vec<u8>>()
    };
    assert_closed(&bombs(8000)).await;
    let received = flood(&bombs(2)).await;
    assert!(received.alive, "a few references are allowed: {:?}", received.go_away);
}

#[tokio::test]
async fn fifty_thousand_streams() {
    let frames: Vec<u8> = (0..50_000).flat_map(|n| frame(HEADERS, END_HEADERS, stream(n), &save_info())).collect();
    let received = flood(&frames).await;
    assert_eq!((received.go_away, received.alive), (ENHANCE_YOUR_CALM, false));
    assert_eq!((received.reset(stream(99)), received.reset(stream(100))), (None, REFUSED_STREAM));
}

/// As many large responses as there may be streams, and no window to send them into.
#[tokio::test]
async fn window_that_never_opens() {
    let closed = [0, 4, 0, 0, 0, 0];
    let symbol = b"huaweicloud.scm.v1.CertificateService";
    let length = u8::try_from(symbol.len()).unwrap();
    let request = [&[0, 0, 0, 0, length + 2, 0x22, length], &symbol[..]].concat();
    let call = |n| {
        let headers = call_of("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo");
        [frame(HEADERS, END_HEADERS, stream(n), &headers), frame(DATA, END_STREAM, stream(n), &request.repeat(10))]
    };
    let frames: Vec<u8> = (0..100).flat_map(call).flatten().collect();
    let received = Flooded::new()
        .await
        .flood([preface(&closed), frames].concat(), |received| received.alive && received.count(HEADERS) == 100)
        .await;
    assert!(received.alive, "{:?}", received.go_away);
    assert_eq!((received.count(HEADERS), received.count(DATA)), (100, 0), "no data exceeds the window");
}
