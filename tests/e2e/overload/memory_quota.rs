//! Hundreds of incomplete requests and unread responses. A call is in flight from its complete request to the hand-over
//! of its response, so neither uses a permit.

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

/// The streams of a connection.
const STREAMS: usize = 100;

/// The calls of a test.
const CALLS: usize = 600;

const DEADLINE: Duration = Duration::from_secs(4);
const TIMEOUT: Duration = Duration::from_secs(7);

/// Opens a connection with this initial stream window.
async fn connect(address: &str, window: u32) -> (SendRequest<Bytes>, PingPong) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (send, mut connection) = client::Builder::new().initial_window_size(window).handshake(stream).await.unwrap();
    let ping = connection.ping_pong().unwrap();
    tokio::spawn(connection);
    (send, ping)
}

/// The prefix of a message of 256 KiB minus one byte.
const LONG: &[u8] = b"\0\0\x03\xff\xff";

/// A call whose request is incomplete.
struct IncompleteCall {
    response: ResponseFuture,
    body: SendStream<Bytes>,
}

impl IncompleteCall {
    async fn open(connection: SendRequest<Bytes>, deadline: Option<Duration>) -> Self {
        Self::start(connection, deadline, b"\0\0\0").await
    }

    async fn start(connection: SendRequest<Bytes>, deadline: Option<Duration>, bytes: &'static [u8]) -> Self {
        let mut request = Request::post(SAVE_INFO);
        if let Some(deadline) = deadline {
            request = request.header("grpc-timeout", format!("{}S", deadline.as_secs()));
        }
        Self::start_with(request, connection, bytes).await
    }

    async fn start_with(request: Builder, connection: SendRequest<Bytes>, bytes: &'static [u8]) -> Self {
        let request = request.header("content-type", "application/grpc");
        let mut connection = connection.ready().await.unwrap();
        let (response, mut body) = connection.send_request(request.body(()).unwrap(), false).unwrap();
        body.send_data(Bytes::from_static(bytes), false).unwrap();
        Self { response, body }
    }

    fn is_pending(&mut self) -> bool {
        (&mut self.response).now_or_never().is_none()
    }

    async fn response_headers(self) -> HeaderMap {
        self.response.await.unwrap().headers().clone()
    }
}

/// Waits until the server has received everything sent before.
async fn wait_until_received(ping: &mut PingPong) {
    ping.ping(h2::Ping::opaque()).await.unwrap();
}

#[tokio::test]
async fn incomplete_requests_use_no_permit_and_time_out() {
    let emulator = emulator().await;
    let variables = [("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", "1"), ("SCM_GATEWAY__UPSTREAM__TIMEOUT", "7s")];
    let process = Process::start(&emulator.endpoint(), &variables).await;
    let mut good = harness::client(&process.address).await;
    let started = Instant::now();
    let mut connections = Vec::new();
    let mut sharing = Vec::new();
    let mut alone = Vec::new();
    for _ in 0..CALLS / STREAMS {
        let (send, ping) = connect(&process.address, 65_535).await;
        for _ in 0..STREAMS {
            sharing.push(IncompleteCall::open(send.clone(), Some(DEADLINE)).await);
        }
        connections.push((send, ping));
    }
    for _ in 0..CALLS {
        let (send, ping) = connect(&process.address, 65_535).await;
        alone.push(IncompleteCall::open(send.clone(), None).await);
        connections.push((send, ping));
    }
    for (_, ping) in &mut connections {
        wait_until_received(ping).await;
    }

    good.save_info(sample()).await.expect("incomplete requests use no permit");

    assert!(sharing.iter_mut().chain(&mut alone).all(IncompleteCall::is_pending), "all were open meanwhile");
    for call in sharing {
        assert_eq!(call.response_headers().await["grpc-status"], "4", "DEADLINE_EXCEEDED");
    }
    assert!(started.elapsed() >= DEADLINE);
    assert!(alone.iter_mut().all(IncompleteCall::is_pending), "a deadline ends only its own call");
    for call in alone {
        assert_eq!(call.response_headers().await["grpc-status"], "4", "DEADLINE_EXCEEDED");
    }
    assert!(started.elapsed() >= TIMEOUT);
    good.save_info(sample()).await.unwrap();
    assert_eq!(emulator.attempts(), 2);
}

#[tokio::test]
async fn unread_responses_use_no_permit() {
    let emulator = emulator().await;
    let process = Process::start(&emulator.endpoint(), &[("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", "1")]).await;
    let mut unread: Vec<(SendRequest<Bytes>, RecvStream)> = Vec::new();
    for _ in 0..CALLS / STREAMS {
        let (send, _) = connect(&process.address, 0).await;
        for _ in 0..STREAMS {
            unread.push((send.clone(), unread_response(send.clone()).await));
        }
    }

    harness::client(&process.address).await.save_info(sample()).await.expect("unread responses use no permit");

    assert!(unread.iter_mut().all(|(_, response)| response.data().now_or_never().is_none()), "no response was read");
    assert_eq!(emulator.attempts(), CALLS + 1);
}

/// Makes a complete call and reads the head of its response. The message waits for the window.
async fn unread_response(connection: SendRequest<Bytes>) -> RecvStream {
    let request = Request::post(SAVE_INFO).header("content-type", "application/grpc").body(()).unwrap();
    let mut connection = connection.ready().await.unwrap();
    let (response, mut body) = connection.send_request(request, false).unwrap();
    body.send_data(framed(0, &sample().encode_to_vec()).into(), true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.headers().get("grpc-status"), None, "a success has its status in the trailers");
    response.into_body()
}

#[tokio::test]
async fn quota_limits_incomplete_requests() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__MEMORY_QUOTA", "1MiB")]).await;
    let mut incomplete = Vec::new();
    let mut rejected_after = None;
    while rejected_after.is_none() {
        // One after the other, each on its own connection, because the connection window is smaller than a message.
        let (send, mut ping) = connect(&gateway.addresses.server, 65_535).await;
        let mut call = IncompleteCall::start(send.clone(), None, LONG).await;
        let mut rest = Bytes::from(vec![0; 200 * 1024]);
        while !rest.is_empty() && call.is_pending() {
            call.body.reserve_capacity(rest.len());
            let capacity = tokio::select! {
                capacity = poll_fn(|cx| call.body.poll_capacity(cx)) => capacity.unwrap().unwrap(),
                _ = &mut call.response => break,
            };
            call.body.send_data(rest.split_to(capacity.min(rest.len())), false).unwrap();
            wait_until_received(&mut ping).await;
        }
        if rest.is_empty() {
            incomplete.push((send, call));
        } else {
            rejected_after = Some(incomplete.len());
        }
        assert!(incomplete.len() < 6, "no call is rejected");
    }
    assert_eq!(rejected_after, Some(4), "each holds 200 KiB and 16 KiB of overhead, in 1 MiB");

    let big = SaveInfoRequest { cert_id: "x".repeat(200 * 1024), ..sample() };
    let status = gateway.save(big.clone()).await.unwrap_err();
    assert_status(&status, Code::ResourceExhausted, "OVERLOADED", None);
    assert!(status.get_error_details().retry_info().is_some());
    drop(incomplete);
    loop {
        let status = gateway.save(big.clone()).await.unwrap_err();
        if status.code() != Code::ResourceExhausted {
            assert_status(&status, Code::InvalidArgument, "INVALID_REQUEST", None);
            break;
        }
    }
    assert_eq!(emulator.attempts(), 0);
}

/// The variables of a gateway behind a sidecar, with the callers `a` and `b`.
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

/// Returns a request of this caller, or of an unidentified one.
fn call_by(url: &str, caller: Option<&str>) -> Builder {
    let request = Request::post(url);
    match caller {
        Some(name) => request.header("x-forwarded-client-cert", format!("URI=spiffe://example.org/{name}")),
        None => request,
    }
}

/// Starts incomplete calls and waits until the number of pending ones is expected. The others are rejected.
async fn fill_quota(
    address: &str,
    url: &str,
    caller: Option<&str>,
    calls: usize,
    expected: RangeInclusive<usize>,
) -> Vec<IncompleteCall> {
    let (send, mut ping) = connect(address, 65_535).await;
    let mut all = Vec::new();
    for _ in 0..calls {
        all.push(IncompleteCall::start_with(call_by(url, caller), send.clone(), b"\0\0\0").await);
    }
    let settled = async {
        loop {
            wait_until_received(&mut ping).await;
            all.retain_mut(IncompleteCall::is_pending);
            if expected.contains(&all.len()) {
                return;
            }
        }
    };
    timeout(Duration::from_secs(30), settled).await.expect("the expected number of calls is pending");
    all
}

#[tokio::test]
async fn quota_is_limited_for_unlisted_and_single_callers() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &SIDECAR).await;
    let address = &gateway.addresses.server;
    // Each call counts 16 KiB plus its headers, and a health request 4 KiB more.
    let _unlisted = fill_quota(address, "http://localhost/grpc.health.v1.Health/Check", None, 60, 12..=12).await;
    let half = fill_quota(address, SAVE_INFO, Some("a"), 80, 60..=63).await;

    let calls = async |caller| {
        let (send, _ping) = connect(address, 65_535).await;
        let message = Bytes::from(framed(0, &sample().encode_to_vec()));
        let mut call = IncompleteCall::start_with(call_by(SAVE_INFO, Some(caller)), send, b"").await;
        call.body.send_data(message, true).unwrap();
        call.response_headers().await.get("grpc-status").map(|status| status.to_str().unwrap().to_owned())
    };
    assert_eq!(calls("a").await.as_deref(), Some("8"), "RESOURCE_EXHAUSTED");
    assert_eq!(calls("b").await, None, "a success has its status in the trailers");
    drop(half);
    while calls("a").await.is_some() {}
    assert_eq!(emulator.attempts(), 2);
}

#[tokio::test]
async fn quota_limits_unread_responses() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__MEMORY_QUOTA", "1MiB")]).await;
    let (send, _ping) = connect(&gateway.addresses.server, 0).await;
    let mut unread = Vec::new();
    for _ in 0..63 {
        unread.push(unread_response(send.clone()).await);
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
