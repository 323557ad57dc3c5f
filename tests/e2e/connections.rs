//! Connections: their limits and their age.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::{Bytes, Incoming},
    client::conn::http2::{SendRequest, handshake},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use scm_emulator::Step;
use tokio::{io::AsyncReadExt as _, net::TcpStream, sync::Notify, task::JoinHandle, time::timeout};
use tonic::{Code, Streaming};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{ServerReflectionResponse, server_reflection_client::ServerReflectionClient};

use crate::harness::{
    Gateway, client, emulator, framed,
    raw::{DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, frame, preface, save_info, send},
    sample,
};

/// Opens a connection and returns it with the task that drives it.
async fn connect(address: &str) -> (SendRequest<Full<Bytes>>, JoinHandle<hyper::Result<()>>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn save(address: &str) -> http::Request<Full<Bytes>> {
    http::Request::post(format!("http://{address}/huaweicloud.scm.v1.CertificateService/SaveInfo"))
        .header("content-type", "application/grpc")
        .body(Full::from(framed(0, &sample().encode_to_vec())))
        .unwrap()
}

/// Reads a response to its end and returns its `grpc-status`.
async fn status(response: http::Response<Incoming>) -> String {
    let collected = response.into_body().collect().await.unwrap();
    collected.trailers().unwrap()["grpc-status"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn connection_over_the_limit_is_closed_at_once() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__MAX_CONNECTIONS", "2")]).await;
    let address = gateway.addresses.server.clone();
    gateway.save(sample()).await.unwrap();
    let (mut second, connection) = connect(&address).await;
    assert_eq!(status(second.send_request(save(&address)).await.unwrap()).await, "0");

    let mut third = TcpStream::connect(&address).await.unwrap();
    assert_eq!(third.read(&mut [0]).await.unwrap_or_default(), 0);

    gateway.save(sample()).await.unwrap();
    assert_eq!(gateway.metric::<u64>("scm_gateway_connections_open").await, 2);
    assert_eq!(gateway.metric::<u64>("scm_gateway_connections_refused_total{reason=\"limit\"").await, 1);
    drop(second);
    connection.await.unwrap().unwrap();
    while gateway.metric::<u64>("scm_gateway_connections_open").await != 1 {}
    client(&address).await.save_info(sample()).await.unwrap();
    assert_eq!(emulator.attempts(), 4);
}

#[tokio::test]
async fn oldest_pending_handshakes_are_evicted() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__MAX_CONNECTIONS", "16")]).await;
    let connect = async || TcpStream::connect(&gateway.addresses.server).await.unwrap();
    let mut silent = VecDeque::new();
    for _ in 0..14 {
        silent.push_back(connect().await); // an eighth of the connections is left
    }
    let extra = 20;
    for _ in 0..extra {
        silent.push_back(connect().await);
        let mut oldest = silent.pop_front().unwrap();
        let _ = oldest.read_to_end(&mut Vec::new()).await; // evicted for the next one
    }
    let refused = "scm_gateway_connections_refused_total{reason=";
    assert_eq!(gateway.metric::<usize>(&format!("{refused}\"handshake_evicted\"")).await, extra);
    let mut clients = Vec::new();
    for calls in 1..=16 {
        let mut client = client(&gateway.addresses.server).await;
        client.save_info(sample()).await.unwrap();
        clients.push(client);
        assert_eq!(emulator.attempts(), calls);
    }
    assert_eq!(gateway.metric::<usize>(&format!("{refused}\"limit\"")).await, 0);
}

#[tokio::test]
async fn old_connection_gets_goaway_and_its_calls_finish() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__MAX_CONNECTION_AGE", "1s")]).await;
    gateway.save(sample()).await.unwrap(); // an unverified key has one call in flight
    let address = gateway.addresses.server.clone();
    let (sender, _connection) = connect(&address).await;
    let gate = Arc::new(Notify::new());
    emulator.script(Step::HangThenServe(gate.clone()));
    let running = tokio::spawn(sender.clone().send_request(save(&address)));
    emulator.wait_for_attempts(2).await;

    // Calls are served until GOAWAY, and none after it.
    let mut served = 0;
    while let Ok(response) = sender.clone().send_request(save(&address)).await {
        assert_eq!(status(response).await, "0");
        served += 1;
    }
    assert!(served > 0);
    assert_eq!(emulator.attempts(), 2 + served, "a call without a response was not sent");
    assert!(!running.is_finished());
    gate.notify_one();
    assert_eq!(status(running.await.unwrap().unwrap()).await, "0");
    client(&address).await.save_info(sample()).await.unwrap(); // the first client's connection may be ending as well
}

/// Opens a reflection stream that never sends a request.
async fn reflection(gateway: &Gateway) -> Streaming<ServerReflectionResponse> {
    let mut client = ServerReflectionClient::new(gateway.channel().await);
    client.server_reflection_info(tokio_stream::pending()).await.unwrap().into_inner()
}

#[tokio::test]
async fn streams_of_an_old_connection_end_as_unavailable() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__MAX_CONNECTION_AGE", "1s")]).await;
    let mut health = HealthClient::new(gateway.channel().await);
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap().expect("the first status of the watch");
    let mut reflection = reflection(&gateway).await;
    assert_eq!(watch.message().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(reflection.message().await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn reflection_without_a_request_times_out() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__UPSTREAM__TIMEOUT", "100ms")]).await;
    let mut reflection = reflection(&gateway).await;
    assert_eq!(reflection.message().await.unwrap_err().code(), Code::DeadlineExceeded);
}

/// A burst before the client knows `max_concurrent_streams`, with more resets than h2's default allows.
#[tokio::test]
async fn calls_over_the_stream_limit_are_reset() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let call = |n: u32| {
        [frame(HEADERS, END_HEADERS, 2 * n + 1, &save_info()), frame(DATA, 0, 2 * n + 1, &framed(0, &[0; 64])[..8])]
    };
    let burst: Vec<u8> = (0..2000).flat_map(call).flatten().collect();
    let received = send(&gateway.addresses.server, &[preface(&[]), burst].concat()).await;
    assert_eq!((received.alive, received.go_away), (true, None));
    assert!(received.count(RST_STREAM) >= 1900, "{}", received.count(RST_STREAM));
    assert_eq!(emulator.attempts(), 0);
}

/// The reset follows a complete or an incomplete message.
#[tokio::test]
async fn call_reset_on_arrival_is_cancelled_and_not_sent() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let message = framed(0, &sample().encode_to_vec());
    let call = |n: u32| {
        let (flags, data) = if n.is_multiple_of(2) { (END_STREAM, &message[..]) } else { (0, &message[..20]) };
        [
            frame(HEADERS, END_HEADERS, 2 * n + 1, &save_info()),
            frame(DATA, flags, 2 * n + 1, data),
            frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8]),
        ]
    };
    let calls: Vec<u8> = (0..50).flat_map(call).flatten().collect();
    let received = send(&gateway.addresses.server, &[preface(&[]), calls].concat()).await;
    assert!(received.alive);
    let cancelled = async {
        loop {
            let (_, page) = gateway.admin("/metrics").await;
            let mut series = page.lines().filter(|line| line.starts_with("rpc_server_call_duration_seconds_count"));
            if let Some(line) = series.next()
                && line.ends_with(" 50")
            {
                assert!(line.contains("\"CANCELLED\"") && series.next().is_none(), "{line}");
                return;
            }
        }
    };
    timeout(Duration::from_secs(10), cancelled).await.expect("all calls are counted as cancelled");
    assert_eq!((emulator.connections(), emulator.attempts()), (0, 0));
}
