//! A client that sends without end: each way is one test. It costs the real binary 16 MiB at the most, and others are
//! answered meanwhile.

use std::time::Duration;

use prost::Message as _;
use scm_emulator::Emulator;
use tokio::time::timeout;

use crate::harness::{
    client, emulator, framed,
    process::Process,
    raw::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Heard, PING, PRIORITY, RST_STREAM, SETTINGS,
        WINDOW_UPDATE, beginning, call_of, field, frame, save_info, send_until,
    },
    sample, value_of,
};

/// What a flood may cost, in KiB.
const MOST: u64 = 16 * 1024;

/// What a flood may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const ENHANCE_YOUR_CALM: Option<u32> = Some(11);
const REFUSED_STREAM: Option<u32> = Some(7);

/// The n-th stream of a client.
fn stream(n: u32) -> u32 {
    2 * n + 1
}

/// A gateway in a process of its own.
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

    /// Sends these bytes, until enough is heard, while others call.
    async fn with(&self, bytes: Vec<u8>, enough: fn(&Heard) -> bool) -> Heard {
        let mut client = client(&self.process.address).await;
        for _ in 0..20 {
            client.save_info(sample()).await.unwrap();
        }
        let (idle, attempts) = (self.process.memory("VmRSS:"), self.emulator.attempts());
        std::fs::write(self.process.proc("clear_refs"), "5").unwrap(); // the peak
        let address = self.process.address.clone();
        let flood = tokio::spawn(async move {
            timeout(PATIENCE, send_until(&address, &bytes, enough)).await.expect("a flood ends")
        });
        let (mut calls, mut over) = (0, false);
        while !over {
            over = flood.is_finished();
            client.save_info(sample()).await.expect("others are answered");
            calls += 1;
        }
        let heard = flood.await.unwrap();
        let grown = self.process.memory("VmHWM:").saturating_sub(idle);
        assert!(grown <= MOST, "{grown} KiB more");
        assert_eq!(self.emulator.attempts() - attempts, calls, "the flood reached nobody");
        heard
    }
}

/// Sends these frames behind a beginning.
async fn flooded(frames: &[u8]) -> Heard {
    Flooded::new().await.with([&beginning(&[]), frames].concat(), |heard| heard.lives).await
}

/// Is ended for these frames, and counted.
async fn ended(frames: &[u8]) {
    let flooded = Flooded::new().await;
    let heard = flooded.with([&beginning(&[]), frames].concat(), |heard| heard.lives).await;
    assert_eq!((heard.go_away, heard.lives), (ENHANCE_YOUR_CALM, false), "{:?}", heard.frames.len());
    let counted = async {
        let floods = "scm_gateway_connections_protocol_errors_total{reason=\"flood\"";
        while value_of::<u64>(&flooded.process.metrics().await, floods) == 0 {}
    };
    timeout(PATIENCE, counted).await.expect("it is counted");
}

#[tokio::test]
async fn pings() {
    ended(&frame(PING, 0, 0, &[0; 8]).repeat(50_000)).await;
}

#[tokio::test]
async fn settings() {
    ended(&frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]).repeat(50_000)).await;
}

#[tokio::test]
async fn priorities() {
    ended(&frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16]).repeat(50_000)).await;
}

#[tokio::test]
async fn window_updates() {
    ended(&frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(50_000)).await;
}

#[tokio::test]
async fn empty_data() {
    let call = frame(HEADERS, END_HEADERS, 1, &save_info());
    ended(&[call, frame(DATA, 0, 1, b"").repeat(50_000)].concat()).await;
}

#[tokio::test]
async fn continuations() {
    let call = frame(HEADERS, 0, 1, &save_info());
    ended(&[call.clone(), frame(CONTINUATION, 0, 1, &field("x", "y").repeat(2000)).repeat(5000)].concat()).await;
    ended(&[call, frame(CONTINUATION, 0, 1, b"").repeat(50_000)].concat()).await;
}

/// Half of them whole calls.
#[tokio::test]
async fn rapid_resets() {
    let message = framed(0, &sample().encode_to_vec());
    let call = |n| {
        let whole = if n % 2 == 0 { frame(DATA, END_STREAM, stream(n), &message) } else { Vec::new() };
        let begun = frame(HEADERS, END_HEADERS, stream(n), &save_info());
        [begun, whole, frame(RST_STREAM, 0, stream(n), &[0, 0, 0, 8])]
    };
    let frames: Vec<u8> = (0..50_000).flat_map(call).flatten().collect();
    let heard = flooded(&frames).await;
    assert!(heard.lives || heard.go_away == ENHANCE_YOUR_CALM, "{:?}", heard.go_away);
}

/// One field of 4,000 bytes enters the table, and then is meant by one byte, again and again.
#[tokio::test]
async fn hpack_bombs() {
    let mut first = save_info();
    first.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]); // 4,000 in the integers of RFC 7541 5.1
    first.extend([b'y'; 4000]);
    let bombs = |times| {
        let bomb = |n| [if n == 0 { first.clone() } else { save_info() }, vec![0x80 | 62; times]].concat();
        (0..100).flat_map(|n| frame(HEADERS, END_HEADERS, stream(n), &bomb(n))).collect::<Vec<u8>>()
    };
    ended(&bombs(8000)).await;
    let heard = flooded(&bombs(2)).await;
    assert!(heard.lives, "so many are not too many: {:?}", heard.go_away);
}

#[tokio::test]
async fn fifty_thousand_streams() {
    let frames: Vec<u8> = (0..50_000).flat_map(|n| frame(HEADERS, END_HEADERS, stream(n), &save_info())).collect();
    let heard = flooded(&frames).await;
    assert_eq!((heard.go_away, heard.lives), (ENHANCE_YOUR_CALM, false));
    assert_eq!((heard.reset(stream(99)), heard.reset(stream(100))), (None, REFUSED_STREAM));
}

/// As many answers as it may ask for at a time, each of them large, and no window to send them into.
#[tokio::test]
async fn a_window_that_never_opens() {
    let closed = [0, 4, 0, 0, 0, 0];
    let symbol = b"huaweicloud.scm.v1.CertificateService";
    let length = u8::try_from(symbol.len()).unwrap();
    let question = [&[0, 0, 0, 0, length + 2, 0x22, length], &symbol[..]].concat();
    let ask = |n| {
        let call = call_of("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo");
        [frame(HEADERS, END_HEADERS, stream(n), &call), frame(DATA, END_STREAM, stream(n), &question.repeat(10))]
    };
    let frames: Vec<u8> = (0..100).flat_map(ask).flatten().collect();
    let heard = Flooded::new()
        .await
        .with([beginning(&closed), frames].concat(), |heard| heard.lives && heard.count(HEADERS) == 100)
        .await;
    assert!(heard.lives, "{:?}", heard.go_away);
    assert_eq!((heard.count(HEADERS), heard.count(DATA)), (100, 0), "nothing goes past the window");
}
