//! Connections: how many there may be, and how long one lives.

use std::sync::Arc;

use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::{Bytes, Incoming},
    client::conn::http2::{SendRequest, handshake},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use scm_emulator::Step;
use tokio::{io::AsyncReadExt as _, net::TcpStream, sync::Notify, task::JoinHandle};

use crate::harness::{Gateway, client, emulator, framed, sample};

/// One connection and the task that runs it, which ends with it.
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

/// The `grpc-status` of an answer read to its end.
async fn status(response: http::Response<Incoming>) -> String {
    let collected = response.into_body().collect().await.unwrap();
    collected.trailers().unwrap()["grpc-status"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once_and_a_place_is_given_back() {
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
async fn an_old_connection_is_told_to_end_and_its_calls_finish() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__MAX_CONNECTION_AGE", "1s")]).await;
    let address = gateway.addresses.server.clone();
    let (sender, _connection) = connect(&address).await;
    let gate = Arc::new(Notify::new());
    emulator.script(Step::HangThenServe(gate.clone()));
    let running = tokio::spawn(sender.clone().send_request(save(&address)));
    emulator.wait_for_attempts(1).await;

    // Until GOAWAY comes, calls are served; after it, none is taken.
    let mut served = 0;
    while let Ok(response) = sender.clone().send_request(save(&address)).await {
        assert_eq!(status(response).await, "0");
        served += 1;
    }
    assert_eq!(emulator.attempts(), 1 + served, "what was not answered was not begun");
    assert!(!running.is_finished());
    gate.notify_one();
    assert_eq!(status(running.await.unwrap().unwrap()).await, "0");
    gateway.save(sample()).await.unwrap();
}
