//! Tests of the HTTP/2 guard with in-memory streams.

use std::{io::ErrorKind, sync::atomic::Ordering::Relaxed, time::Duration};

use h2::Reason;
use opentelemetry::metrics::{Meter, MeterProvider as _};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};
use tokio::{
    io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{GuardedIo, HandshakeWatch, ProtocolErrors, frames, guard};
use crate::{
    clock::monotonic,
    grpc::{
        connection::handshakes::{PendingHandshake, PendingHandshakes},
        limit::connection_memory::{Account, ConnectionMemory, Eviction},
    },
};

/// The timeout for a peer that does not read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

const MEMORY_QUOTA: usize = 1 << 20;

/// The client's preface with its SETTINGS.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const PUSH_PROMISE: &[u8] = b"\0\0\x04\x05\x04\0\0\0\x01\0\0\0\x02";
/// A call on stream 1, and the GOAWAY with and without it as the last stream.
const CALL: &[u8] = b"\0\0\0\x01\x05\0\0\0\x01";
const GOAWAY_WITH_CALL: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\x01\0\0\0\x01";
const GOAWAY_WITHOUT_CALL: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x01";

fn guarded<S: AsyncWrite + Unpin>(stream: S) -> (GuardedIo<S>, HandshakeWatch) {
    guarded_with(
        stream,
        PendingHandshakes::default().register(&CancellationToken::new()),
        &SdkMeterProvider::default().meter("test"),
    )
}

fn guarded_with<S: AsyncWrite + Unpin>(
    stream: S,
    handshake: PendingHandshake,
    meter: &Meter,
) -> (GuardedIo<S>, HandshakeWatch) {
    let protocol_errors = ProtocolErrors::new(meter);
    let account = ConnectionMemory::new(MEMORY_QUOTA, meter).open(CancellationToken::new(), CancellationToken::new());
    guard(stream, 1000, protocol_errors, handshake, account, WRITE_TIMEOUT)
}

async fn times_out(bytes: &[u8]) -> bool {
    let (mut client, server) = tokio::io::duplex(64);
    let (mut guarded, watch) = guarded(server);
    client.write_all(bytes).await.unwrap();
    guarded.read_exact(&mut vec![0; bytes.len()]).await.unwrap();
    timeout(Duration::from_secs(60), watch.timed_out(monotonic() + Duration::from_secs(10))).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn incomplete_handshakes_time_out() {
    assert!(times_out(b"").await);
    assert!(times_out(&PREFACE[..PREFACE.len() - 1]).await);
    assert!(!times_out(PREFACE).await);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_disconnected() {
    let (mut client, server) = tokio::io::duplex(64);
    let (mut guarded, _watch) = guarded(server);
    let started = monotonic();
    let late_read = async {
        sleep(WRITE_TIMEOUT - Duration::from_secs(1)).await;
        client.read_exact(&mut [0; 64]).await.unwrap();
        std::future::pending::<()>().await;
    };
    let error = tokio::select! {
        written = guarded.write_all(&[0; 200]) => written.unwrap_err(),
        () = late_read => unreachable!(),
    };
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let elapsed = monotonic() - started;
    assert!(elapsed > WRITE_TIMEOUT && elapsed < WRITE_TIMEOUT * 2, "each read restarts the timeout: {elapsed:?}");
}

/// Returns the bytes that a client receives after a protocol error, in addition to `written`.
async fn received_after_error(written: &[u8]) -> Vec<u8> {
    let (mut client, server) = tokio::io::duplex(1024);
    let (mut guarded, _watch) = guarded(server);
    guarded.write_all(written).await.unwrap();
    client.write_all(&[PREFACE, PUSH_PROMISE].concat()).await.unwrap();
    let error = guarded.read(&mut [0; 1024]).await.unwrap_err();
    let error = error.get_ref().unwrap().downcast_ref::<h2::Error>().unwrap();
    assert_eq!(error.reason(), Some(Reason::PROTOCOL_ERROR));
    drop(guarded);
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.unwrap();
    received[written.len()..].to_vec()
}

#[tokio::test]
async fn goaway_is_sent_only_between_frames() {
    let settings = b"\0\0\0\x04\0\0\0\0\0";
    assert_eq!(received_after_error(b"").await, GOAWAY_WITHOUT_CALL);
    assert_eq!(received_after_error(settings).await, GOAWAY_WITHOUT_CALL);
    assert_eq!(received_after_error(&settings[..5]).await, b"", "GOAWAY would become part of the open frame");
}

/// A client may retry a call above the last stream id of a GOAWAY.
#[tokio::test]
async fn goaway_names_the_last_processed_stream() {
    for (first, second, expected) in [
        ([PREFACE, CALL].concat(), PUSH_PROMISE.to_vec(), GOAWAY_WITH_CALL),
        (PREFACE.to_vec(), [CALL, PUSH_PROMISE].concat(), GOAWAY_WITHOUT_CALL),
    ] {
        let (mut client, server) = tokio::io::duplex(1024);
        let (mut guarded, _watch) = guarded(server);
        client.write_all(&first).await.unwrap();
        guarded.read_exact(&mut vec![0; first.len()]).await.unwrap();
        client.write_all(&second).await.unwrap();
        guarded.read(&mut [0; 1024]).await.unwrap_err();
        drop(guarded);
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, expected);
    }
}

/// The bytes reach the gateway after the eviction, and before the task of the connection ends with it.
#[tokio::test(start_paused = true)]
async fn an_evicted_handshake_gets_a_goaway_that_allows_retries() {
    let handshakes = PendingHandshakes::default();
    let (mut client, server) = tokio::io::duplex(1024);
    let (mut guarded, _watch) = guarded_with(
        server,
        handshakes.register(&CancellationToken::new()),
        &SdkMeterProvider::default().meter("test"),
    );
    handshakes.evict_oldest();
    for bytes in [&[PREFACE, CALL].concat()[..], PUSH_PROMISE] {
        client.write_all(bytes).await.unwrap();
        let read = timeout(Duration::from_secs(1), guarded.read(&mut [0; 1024])).await;
        assert!(read.is_err(), "h2 gets no byte, and no error that it would report");
    }
    drop(guarded);
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, frames::go_away(0, Reason::NO_ERROR));
}

/// RFC 9113 6.8.
#[tokio::test]
async fn the_last_stream_id_of_goaway_is_never_raised() {
    const SECOND_CALL: &[u8] = b"\0\0\0\x01\x05\0\0\0\x03";
    let (mut client, server) = tokio::io::duplex(1024);
    let (mut guarded, _watch) = guarded(server);
    client.write_all(&[PREFACE, CALL].concat()).await.unwrap();
    guarded.read_exact(&mut vec![0; PREFACE.len() + CALL.len()]).await.unwrap();
    guarded.write_all(&frames::go_away(1, Reason::NO_ERROR)).await.unwrap();
    client.write_all(SECOND_CALL).await.unwrap();
    guarded.read_exact(&mut vec![0; SECOND_CALL.len()]).await.unwrap();
    client.write_all(PUSH_PROMISE).await.unwrap();
    guarded.read(&mut [0; 1024]).await.unwrap_err();
    drop(guarded);
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, [&frames::go_away(1, Reason::NO_ERROR)[..], GOAWAY_WITH_CALL].concat());
}

/// What happens on a connection before the gateway drops it.
#[derive(Debug)]
enum Event {
    HyperEnds,
    Evicted(Eviction),
    Sent([u8; 17]),
    ClientEnds,
    WriteFails,
}

#[tokio::test]
async fn only_unannounced_ends_send_goaway_and_only_violations_count() {
    let go_away = |reason| frames::go_away(1, reason).to_vec();
    let draining = frames::go_away(u32::MAX >> 1, Reason::NO_ERROR);
    let drained = frames::go_away(1, Reason::NO_ERROR);
    for (events, expected, counted) in [
        (vec![Event::HyperEnds], go_away(Reason::PROTOCOL_ERROR), 1),
        (vec![], go_away(Reason::NO_ERROR), 0),
        (vec![Event::Evicted(Eviction::Stalled)], go_away(Reason::ENHANCE_YOUR_CALM), 0),
        (vec![Event::Evicted(Eviction::Idle)], go_away(Reason::NO_ERROR), 0),
        (vec![Event::Sent(draining)], [draining, drained].concat(), 0),
        (vec![Event::Sent(drained)], drained.to_vec(), 0),
        (vec![Event::Sent(drained), Event::HyperEnds], drained.to_vec(), 0),
        (vec![Event::ClientEnds, Event::HyperEnds], vec![], 0),
        (vec![Event::WriteFails, Event::HyperEnds], vec![], 0),
    ] {
        let registry = Registry::new();
        let reader = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build().unwrap();
        let provider = SdkMeterProvider::builder().with_reader(reader).build();
        let (mut client, server) = tokio::io::duplex(1024);
        let (mut guarded, _watch) = guarded_with(
            server,
            PendingHandshakes::default().register(&CancellationToken::new()),
            &provider.meter("test"),
        );
        client.write_all(&[PREFACE, CALL].concat()).await.unwrap();
        guarded.read_exact(&mut vec![0; PREFACE.len() + CALL.len()]).await.unwrap();
        for event in &events {
            match event {
                Event::HyperEnds => guarded.has_ended().store(true, Relaxed),
                Event::Evicted(eviction) => evict(&guarded.account, *eviction),
                Event::Sent(frame) => guarded.write_all(frame).await.unwrap(),
                Event::ClientEnds => {
                    client.shutdown().await.unwrap();
                    assert_eq!(guarded.read(&mut [0; 64]).await.unwrap(), 0);
                }
                Event::WriteFails => {
                    client = tokio::io::duplex(1).0;
                    guarded.write_all(b"x").await.unwrap_err();
                }
            }
        }
        drop(guarded);
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert_eq!((received, protocol_errors(&registry)), (expected, counted), "{events:?}");
    }
}

/// Charges the account of a connection with an open stream until it is evicted.
fn evict(account: &Account, eviction: Eviction) {
    match eviction {
        Eviction::Stalled => account.record_blocked(),
        Eviction::Idle => account.close_stream(),
    }
    account.charge(MEMORY_QUOTA);
    assert_eq!(account.eviction(), Some(eviction));
}

/// Returns the number of connections that count as closed for what their client sent.
fn protocol_errors(registry: &Registry) -> usize {
    let page = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let samples = page.lines().filter(|line| line.starts_with("scm_gateway_connections_protocol_errors_total{"));
    samples.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum()
}
