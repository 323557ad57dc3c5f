//! Peers that do not read their responses: the memory that all connections hold together, and good clients meanwhile.

use std::time::Duration;

use bytes::Bytes;
use h2::{RecvStream, client::SendRequest};
use http::Request;
use prost::Message as _;
use scm_emulator::{Emulator, Reply, Step};
use scm_gateway::proto::WatchCertificateRequest;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::timeout,
};

use crate::harness::{
    self, client, emulator, framed,
    process::Process,
    raw::{
        DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, call_of, frame, preface,
        send_until,
    },
    read, sample, value_of,
};

/// The connections of the peers: the default of `server.max_connections` without a few for good clients.
const PEERS: usize = 950;

/// The default of `server.max_concurrent_streams`.
const STREAMS: u32 = 100;

/// What all connections may add to the memory of the process, in KiB.
const MAX_GROWTH: u64 = 128 * 1024;

const TIMEOUT: Duration = Duration::from_secs(60);

const NO_ERROR: u32 = 0;
const ENHANCE_YOUR_CALM: u32 = 11;

/// The size of a large text, in bytes.
const LARGE: usize = 1000 * 1024;

const HEALTH: &str = "/grpc.health.v1.Health/Check";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const SAVE_INFO: &str = "/huaweicloud.scm.v1.CertificateService/SaveInfo";
const READ_INFO: &str = "/huaweicloud.scm.v1.CertificateService/ReadInfo";
const WATCH_CERTIFICATE: &str = "/huaweicloud.scm.v1.CertificateService/WatchCertificate";

/// Connects with the smallest receive buffer.
async fn connect(address: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(1).unwrap();
    socket.connect(address.parse().unwrap()).await.unwrap()
}

/// Returns a preface that opens the connection's window, and the window of each stream to this many bytes.
fn window(bytes: u32) -> Vec<u8> {
    let settings = [&[0, 4][..], &bytes.to_be_bytes()].concat();
    [preface(&settings), frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes())].concat()
}

/// Returns calls on the first streams.
fn calls(count: u32, path: &str, message: &[u8]) -> Vec<u8> {
    let headers = call_of(path);
    let call =
        |n| [frame(HEADERS, END_HEADERS, 2 * n + 1, &headers), frame(DATA, END_STREAM, 2 * n + 1, &framed(0, message))];
    (0..count).flat_map(call).flatten().collect()
}

/// Returns a message to reflection, whose response is large.
fn symbol() -> Vec<u8> {
    let symbol = b"huaweicloud.scm.v1.CertificateService";
    [&[0x22, u8::try_from(symbol.len()).unwrap()], &symbol[..]].concat()
}

/// Returns the value of a counter of evicted connections.
async fn evicted(process: &Process, reason: &str) -> u64 {
    value_of(&process.metrics().await, &format!("scm_gateway_connections_evicted_total{{reason=\"{reason}\""))
}

/// Connects all peers to a gateway in its own process, and sends these bytes from each, while a good client makes calls.
/// Returns how much the memory of the gateway has grown at its peak, in KiB.
async fn growth(emulator: &Emulator, start: &[u8], bytes: &[u8], reads: bool) -> u64 {
    let process = Process::with_descriptors(10_000, &emulator.endpoint(), &[]).await;
    let mut client = client(&process.address).await;
    for _ in 0..20 {
        client.save_info(sample()).await.unwrap();
    }
    let idle = process.memory("VmRSS:");
    let mut peers = Vec::new();
    for _ in 0..PEERS {
        let mut peer = connect(&process.address).await;
        peer.write_all(start).await.unwrap();
        peer.read_exact(&mut [0; 9]).await.unwrap(); // the handshake is complete and cannot be evicted
        peers.push(peer);
    }
    for (n, peer) in peers.iter_mut().enumerate() {
        // Ends early if the connection is evicted, or if the gateway reads nothing from a peer that reads nothing.
        let _ = timeout(Duration::from_millis(1), peer.write_all(bytes)).await;
        if reads {
            let _ = peer.try_read(&mut [0; 1000]);
        }
        if n % 10 == 0 {
            let _ = client.save_info(sample()).await; // may exceed the memory quota
        }
    }
    for _ in 0..100 {
        for peer in peers.iter().filter(|_| reads) {
            let _ = peer.try_read(&mut [0; 1000]);
        }
        let _ = client.save_info(sample()).await;
    }
    client.save_info(sample()).await.expect("other connections are served");
    process.peak_memory().saturating_sub(idle)
}

#[tokio::test]
async fn memory_of_all_connections_is_limited() {
    let emulator = emulator().await;
    let health = |count| calls(count, HEALTH, b"");
    let resets: Vec<u8> = (0..10).flat_map(|n| frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8])).collect();
    let control = [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[])].concat().repeat(450);
    for (name, stream_window, bytes, reads) in [
        ("small windows", 1, health(STREAMS), false),
        ("closed windows", 0, health(20), false),
        ("unread statuses", 65_535, calls(60, SAVE_INFO, b""), false),
        ("unread large responses", 0x7fff_ffff, calls(10, REFLECTION, &symbol()), false),
        ("slow readers", 65_535, calls(10, SAVE_INFO, b""), true),
        ("resets", 1, [health(10), resets].concat(), false),
        ("control frames", 65_535, control, false),
        ("many streams", 65_535, health(STREAMS), true),
    ] {
        let grown = growth(&emulator, &window(stream_window), &bytes, reads).await;
        assert!(grown <= MAX_GROWTH, "{name}: {grown} KiB");
    }
}

/// A gateway with a small quota, in its own process.
async fn small_quota(emulator: &Emulator) -> Process {
    let variables = [("SCM_GATEWAY__SERVER__CONNECTION_MEMORY_QUOTA", "8MiB")];
    let mut process = Process::start(&emulator.endpoint(), &variables).await;
    process.read_log();
    process
}

/// Opens a connection whose peer reads nothing.
async fn stalled_peer(process: &Process) -> TcpStream {
    let mut peer = connect(&process.address).await;
    peer.write_all(&[window(1), calls(STREAMS, HEALTH, b"")].concat()).await.unwrap();
    peer
}

/// Opens a connection with a small stream window, and calls ReadInfo, whose response is nearly 1 MiB.
async fn read_large(emulator: &Emulator, process: &Process) -> (SendRequest<Bytes>, RecvStream) {
    let name = "x".repeat(LARGE);
    emulator.script(Step::Reply(Reply::json(200, &format!("{{\"company_name\":\"{name}\"}}"))));
    let stream = TcpStream::connect(&process.address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(16 * 1024).initial_connection_window_size(1024 * 1024);
    let (send, connection) = builder.handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let response = start(&send, READ_INFO, &read().encode_to_vec()).await;
    (send, response)
}

/// Makes a call and returns the body of its response.
async fn start(send: &SendRequest<Bytes>, path: &str, message: &[u8]) -> RecvStream {
    let request = Request::post(format!("http://localhost{path}")).header("content-type", "application/grpc");
    let mut send = send.clone().ready().await.unwrap();
    let (response, mut body) = send.send_request(request.body(()).unwrap(), false).unwrap();
    body.send_data(framed(0, message).into(), true).unwrap();
    response.await.unwrap().into_body()
}

/// Reads a response to its end, and calls `between` after each part. Returns the size of its body.
async fn read_slowly(response: &mut RecvStream, mut between: impl AsyncFnMut()) -> usize {
    let mut size = 0;
    while let Some(data) = response.data().await {
        let data = data.expect("the connection is not evicted");
        size += data.len();
        response.flow_control().release_capacity(data.len()).unwrap();
        between().await;
    }
    let trailers = response.trailers().await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    size
}

#[tokio::test]
async fn slow_reader_of_a_large_response_is_not_evicted() {
    let emulator = emulator().await;
    let process = small_quota(&emulator).await;
    let (_send, mut response) = read_large(&emulator, &process).await;
    let mut peers = Vec::new();
    let size = read_slowly(&mut response, async || peers.push(stalled_peer(&process).await)).await;
    assert!(size > LARGE, "{size}");
    assert!(peers.len() >= LARGE / (16 * 1024), "{}", peers.len());
    assert!(evicted(&process, "stalled").await > 0);
}

#[tokio::test]
async fn client_that_is_slow_on_one_stream_is_not_evicted() {
    let emulator = emulator().await;
    let process = small_quota(&emulator).await;
    let (send, mut slow) = read_large(&emulator, &process).await;
    let mut peers = Vec::new();
    for _ in 0..40 {
        peers.push(stalled_peer(&process).await);
        let mut response = start(&send, SAVE_INFO, &sample().encode_to_vec()).await;
        read_slowly(&mut response, async || {}).await;
    }
    assert!(evicted(&process, "stalled").await > 0);
    let size = read_slowly(&mut slow, async || {}).await;
    assert!(size > LARGE, "{size}");
}

/// The peers also wait for responses to their PINGs, so that h2 stops reading.
#[tokio::test]
async fn evicted_connections_are_not_protocol_errors() {
    let emulator = emulator().await;
    let process = small_quota(&emulator).await;
    let bytes = [window(0x7fff_ffff), calls(STREAMS, REFLECTION, &symbol()), frame(PING, 0, 0, &[0; 8]).repeat(20)];
    let mut peers = Vec::new();
    let closed = timeout(TIMEOUT, async {
        for _ in 0..30 {
            let mut peer = connect(&process.address).await;
            let _ = timeout(Duration::from_millis(100), peer.write_all(&bytes.concat())).await; // may be evicted
            peers.push(peer);
        }
        loop {
            let evicted = evicted(&process, "stalled").await;
            if evicted > 0 && process.metric("scm_gateway_connections_open").await + evicted <= 30 {
                return;
            }
        }
    });
    closed.await.expect("evicted connections are closed");
    let page = process.metrics().await;
    let errors =
        |reason| value_of::<u64>(&page, &format!("scm_gateway_connections_protocol_errors_total{{reason=\"{reason}\""));
    assert_eq!(["flood", "protocol"].map(errors), [0, 0]);
}

#[tokio::test]
async fn evicted_connections_get_goaway() {
    let emulator = emulator().await;
    let process = small_quota(&emulator).await;
    let watch = WatchCertificateRequest { cert_id: harness::CERT.into(), ..Default::default() }.encode_to_vec();
    for (reason, path, message, stream_window, code) in [
        ("stalled", HEALTH, &b""[..], 1, ENHANCE_YOUR_CALM),
        ("idle", HEALTH, &b""[..], 65_535, NO_ERROR),
        ("idle", WATCH_CERTIFICATE, &watch, 65_535, NO_ERROR),
    ] {
        let bytes = [window(stream_window), calls(STREAMS, path, message)].concat();
        let before = evicted(&process, reason).await;
        let mut peers = JoinSet::new();
        let received = timeout(TIMEOUT, async {
            loop {
                let (address, bytes) = (process.address.clone(), bytes.clone());
                peers.spawn(async move { send_until(&address, &bytes, |_| false).await });
                if evicted(&process, reason).await > before {
                    return peers.join_next().await.unwrap().unwrap();
                }
            }
        });
        let received = received.await.expect("a connection is evicted");
        assert_eq!(received.go_away, Some(code), "{reason} after {path}");
    }
    harness::client(&process.address).await.save_info(sample()).await.unwrap();
}
