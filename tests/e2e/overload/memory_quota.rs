//! Half-sent requests and unread answers, by the hundred: a call is in flight from its complete request to the hand-over
//! of its answer, so neither keeps a place.

use std::{
    future::poll_fn,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use h2::{
    PingPong, RecvStream, SendStream,
    client::{self, ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request, request::Builder};
use prost::Message as _;
use scm_gateway::proto::SaveInfoRequest;
use tokio::{net::TcpStream, time::timeout};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::harness::{self, Gateway, assert_status, emulator, framed, process::Process, sample};

const SAVE_INFO: &str = "http://localhost/huaweicloud.scm.v1.CertificateService/SaveInfo";

/// Streams that one connection takes, and how many of them there are in all.
const STREAMS: usize = 100;
const MANY: usize = 600;

const DEADLINE: Duration = Duration::from_secs(4);
const TIMEOUT: Duration = Duration::from_secs(7);

/// A connection whose answers may be so long before the client has to say that it reads.
async fn connect(address: &str, window: u32) -> (SendRequest<Bytes>, PingPong) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (send, mut connection) = client::Builder::new().initial_window_size(window).handshake(stream).await.unwrap();
    let ping = connection.ping_pong().unwrap();
    tokio::spawn(connection);
    (send, ping)
}

/// The head of a message of 256 KiB less one byte.
const LONG: &[u8] = b"\0\0\x03\xff\xff";

/// A call of which a few bytes came.
struct HalfSent {
    answer: ResponseFuture,
    request: SendStream<Bytes>,
}

impl HalfSent {
    async fn send(connection: SendRequest<Bytes>, deadline: Option<Duration>) -> Self {
        Self::begin(connection, deadline, b"\0\0\0").await
    }

    async fn begin(connection: SendRequest<Bytes>, deadline: Option<Duration>, begun: &'static [u8]) -> Self {
        let mut request = Request::post(SAVE_INFO);
        if let Some(deadline) = deadline {
            request = request.header("grpc-timeout", format!("{}S", deadline.as_secs()));
        }
        Self::begin_with(request, connection, begun).await
    }

    async fn begin_with(request: Builder, connection: SendRequest<Bytes>, begun: &'static [u8]) -> Self {
        let request = request.header("content-type", "application/grpc");
        let mut connection = connection.ready().await.unwrap();
        let (answer, mut body) = connection.send_request(request.body(()).unwrap(), false).unwrap();
        body.send_data(Bytes::from_static(begun), false).unwrap();
        Self { answer, request: body }
    }

    fn hangs(&mut self) -> bool {
        (&mut self.answer).now_or_never().is_none()
    }

    async fn end(self) -> HeaderMap {
        self.answer.await.unwrap().headers().clone()
    }
}

/// Once it is answered, everything sent before has arrived.
async fn arrived(ping: &mut PingPong) {
    ping.ping(h2::Ping::opaque()).await.unwrap();
}

#[tokio::test]
async fn hundreds_of_half_sent_requests_shut_nobody_out_and_end_by_their_deadline() {
    let emulator = emulator().await;
    let variables = [("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", "1"), ("SCM_GATEWAY__UPSTREAM__TIMEOUT", "7s")];
    let process = Process::start(&emulator.endpoint(), &variables).await;
    let mut good = harness::client(&process.address).await;
    let started = Instant::now();
    let (mut connections, mut sharing, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..MANY / STREAMS {
        let (send, ping) = connect(&process.address, 65_535).await;
        for _ in 0..STREAMS {
            sharing.push(HalfSent::send(send.clone(), Some(DEADLINE)).await);
        }
        connections.push((send, ping));
    }
    for _ in 0..MANY {
        let (send, ping) = connect(&process.address, 65_535).await;
        alone.push(HalfSent::send(send.clone(), None).await);
        connections.push((send, ping));
    }
    for (_, ping) in &mut connections {
        arrived(ping).await;
    }

    good.save_info(sample()).await.expect("they take no place");

    assert!(sharing.iter_mut().chain(&mut alone).all(HalfSent::hangs), "all of them were there meanwhile");
    for call in sharing {
        assert_eq!(call.end().await["grpc-status"], "4", "DEADLINE_EXCEEDED");
    }
    assert!(started.elapsed() >= DEADLINE);
    assert!(alone.iter_mut().all(HalfSent::hangs), "a deadline ends its own call");
    for call in alone {
        assert_eq!(call.end().await["grpc-status"], "4", "DEADLINE_EXCEEDED");
    }
    assert!(started.elapsed() >= TIMEOUT);
    good.save_info(sample()).await.unwrap();
    assert_eq!(emulator.attempts(), 2);
}

#[tokio::test]
async fn hundreds_of_answers_that_nobody_reads_keep_no_place() {
    let emulator = emulator().await;
    let process = Process::start(&emulator.endpoint(), &[("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", "1")]).await;
    let mut unread: Vec<(SendRequest<Bytes>, RecvStream)> = Vec::new();
    for _ in 0..MANY / STREAMS {
        let (send, _) = connect(&process.address, 0).await;
        for _ in 0..STREAMS {
            unread.push((send.clone(), answered(send.clone()).await));
        }
    }

    harness::client(&process.address).await.save_info(sample()).await.expect("they keep no place");

    assert!(unread.iter_mut().all(|(_, answer)| answer.data().now_or_never().is_none()), "not one was read");
    assert_eq!(emulator.attempts(), MANY + 1);
}

/// A whole call, up to the head of its answer: the message waits for the window.
async fn answered(connection: SendRequest<Bytes>) -> RecvStream {
    let request = Request::post(SAVE_INFO).header("content-type", "application/grpc").body(()).unwrap();
    let mut connection = connection.ready().await.unwrap();
    let (answer, mut body) = connection.send_request(request, false).unwrap();
    body.send_data(framed(0, &sample().encode_to_vec()).into(), true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.headers().get("grpc-status"), None, "a success has its status in the trailers");
    answer.into_body()
}

#[tokio::test]
async fn half_sent_requests_hold_so_many_bytes_at_most_and_one_more_is_refused() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__MEMORY_QUOTA", "1MiB")]).await;
    let mut half_sent = Vec::new();
    let mut refused = None;
    while refused.is_none() {
        // One after the other, each on a connection of its own, for a window is smaller than what it holds.
        let (send, mut ping) = connect(&gateway.addresses.server, 65_535).await;
        let mut request = HalfSent::begin(send.clone(), None, LONG).await;
        let mut body = Bytes::from(vec![0; 200 * 1024]);
        while !body.is_empty() && request.hangs() {
            request.request.reserve_capacity(body.len());
            let room = tokio::select! {
                room = poll_fn(|cx| request.request.poll_capacity(cx)) => room.unwrap().unwrap(),
                _ = &mut request.answer => break,
            };
            request.request.send_data(body.split_to(room.min(body.len())), false).unwrap();
            arrived(&mut ping).await;
        }
        match body.is_empty() {
            true => half_sent.push((send, request)),
            false => refused = Some(half_sent.len()),
        }
        assert!(half_sent.len() < 6, "nothing is refused");
    }
    assert_eq!(refused, Some(4), "of 200 KiB and 16 each, in 1 MiB");

    let big = SaveInfoRequest { cert_id: "x".repeat(200 * 1024), ..sample() };
    let status = gateway.save(big.clone()).await.unwrap_err();
    assert_status(&status, Code::ResourceExhausted, "OVERLOADED", None);
    assert!(status.get_error_details().retry_info().is_some());
    drop(half_sent);
    loop {
        let status = gateway.save(big.clone()).await.unwrap_err();
        if status.code() != Code::ResourceExhausted {
            assert_status(&status, Code::InvalidArgument, "INVALID_REQUEST", None);
            break;
        }
    }
    assert_eq!(emulator.attempts(), 0);
}

/// What a sidecar says of who calls.
const SIDECAR: [(&str, &str); 8] = [
    ("SCM_GATEWAY__SERVER__TRUST_XFCC", "true"),
    ("SCM_GATEWAY__SERVER__MEMORY_QUOTA", "2MiB"),
    ("SCM_GATEWAY__CALLERS__0__IDENTITY", "spiffe://example.org/a"),
    ("SCM_GATEWAY__CALLERS__0__METHODS", "SaveInfo"),
    ("SCM_GATEWAY__CALLERS__0__PROJECTS", "*"),
    ("SCM_GATEWAY__CALLERS__1__IDENTITY", "spiffe://example.org/b"),
    ("SCM_GATEWAY__CALLERS__1__METHODS", "SaveInfo"),
    ("SCM_GATEWAY__CALLERS__1__PROJECTS", "*"),
];

/// A call of the caller of this name, or of nobody's.
fn call_by(url: &str, caller: Option<&str>) -> Builder {
    let request = Request::post(url);
    match caller {
        Some(name) => request.header("x-forwarded-client-cert", format!("URI=spiffe://example.org/{name}")),
        None => request,
    }
}

/// So many half-sent calls, of which so many are there in the end: the others are refused.
async fn crowd(
    address: &str,
    url: &str,
    caller: Option<&str>,
    calls: usize,
    there: RangeInclusive<usize>,
) -> Vec<HalfSent> {
    let (send, mut ping) = connect(address, 65_535).await;
    let mut all = Vec::new();
    for _ in 0..calls {
        all.push(HalfSent::begin_with(call_by(url, caller), send.clone(), b"\0\0\0").await);
    }
    let refused = async {
        loop {
            arrived(&mut ping).await;
            all.retain_mut(HalfSent::hangs);
            if there.contains(&all.len()) {
                return;
            }
        }
    };
    timeout(Duration::from_secs(30), refused).await.expect("of each so many are there");
    all
}

#[tokio::test]
async fn neither_strangers_nor_one_caller_keep_the_others_from_calling() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &SIDECAR).await;
    let address = &gateway.addresses.server;
    // Each counts for 16 KiB, and its headers, and a question for 4 KiB more.
    let _an_eighth = crowd(address, "http://localhost/grpc.health.v1.Health/Check", None, 60, 12..=12).await;
    let half = crowd(address, SAVE_INFO, Some("a"), 80, 60..=63).await;

    let calls = async |caller| {
        let (send, _ping) = connect(address, 65_535).await;
        let whole = Bytes::from(framed(0, &sample().encode_to_vec()));
        let mut call = HalfSent::begin_with(call_by(SAVE_INFO, Some(caller)), send, b"").await;
        call.request.send_data(whole, true).unwrap();
        call.end().await.get("grpc-status").map(|status| status.to_str().unwrap().to_owned())
    };
    assert_eq!(calls("a").await.as_deref(), Some("8"), "RESOURCE_EXHAUSTED");
    assert_eq!(calls("b").await, None, "a success has its status in the trailers");
    drop(half);
    while calls("a").await.is_some() {}
    assert_eq!(emulator.attempts(), 2);
}

#[tokio::test]
async fn answers_that_nobody_reads_are_bounded_and_one_more_call_is_refused_before_it_is_carried_out() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__MEMORY_QUOTA", "1MiB")]).await;
    let (send, _ping) = connect(&gateway.addresses.server, 0).await;
    let mut unread = Vec::new();
    for _ in 0..63 {
        unread.push(answered(send.clone()).await);
    }
    let mut status = gateway.save(sample()).await.unwrap_err();
    assert_status(&status, Code::ResourceExhausted, "OVERLOADED", None);
    assert_eq!(emulator.attempts(), 63);
    drop((unread, send));
    while status.code() == Code::ResourceExhausted {
        match gateway.save(sample()).await {
            Ok(_) => break,
            Err(error) => status = error,
        }
    }
    assert_eq!((status.code(), emulator.attempts()), (Code::ResourceExhausted, 64));
}
