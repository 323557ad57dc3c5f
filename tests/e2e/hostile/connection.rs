//! Connections that cannot be opened, break, hang, drip, or are closed while idle.

use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use scm_emulator::{Step, Then};
use tonic::Code;

use super::{Pair, SUCCESS, expect, gateway, head, lost, raw, succeeds, success, then, times_out};
use crate::harness::{Gateway, Refusing, emulator, sample};

/// Asserts that a call cannot connect.
async fn unreachable(endpoint: &str, variables: &[(&str, &str)]) {
    let gateway = gateway(endpoint, variables).await;
    let status = gateway.save(sample()).await.unwrap_err();
    expect(&status, 3, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
}

#[tokio::test]
async fn connection_refused() {
    unreachable(&Refusing::new().endpoint(), &[]).await;
}

#[tokio::test]
async fn name_does_not_resolve() {
    unreachable("https://scm.invalid", &[]).await;
}

/// The listener's backlog is full, so the kernel does not answer.
#[tokio::test]
async fn address_does_not_respond() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(50)).ok();
    let backlog: Vec<_> = (0..16).map_while(connect).collect();
    assert!(backlog.len() < 16, "the backlog is full");
    unreachable(&format!("http://{address}"), &[("SCM_GATEWAY__UPSTREAM__CONNECT_TIMEOUT", "50ms")]).await;
}

#[tokio::test]
async fn closed_before_the_request_is_read() {
    let pair = Pair::new().await;
    pair.emulator.scripts(vec![Step::CloseUnread; 3]);
    let status = pair.gateway.save(sample()).await.unwrap_err();
    expect(&status, 3, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
    assert_eq!((pair.emulator.attempts(), pair.emulator.connections()), (0, 3));
    pair.next_is_good().await;
}

#[tokio::test]
async fn closed_before_the_head() {
    lost(Step::Close).await;
}

#[tokio::test]
async fn reset_before_the_head() {
    lost(Step::Reset).await;
}

#[tokio::test]
async fn closed_in_the_middle_of_the_head() {
    lost(raw("HTTP/1.1 200 OK\r\nContent-Le")).await;
}

#[tokio::test]
async fn reset_in_the_middle_of_the_head() {
    lost(then("HTTP/1.1 200 OK\r\nContent-Le", Then::Reset)).await;
}

#[tokio::test]
async fn closed_after_the_head() {
    lost(raw(head("Content-Length: 26"))).await;
}

#[tokio::test]
async fn reset_after_the_head() {
    lost(then(head("Content-Length: 26"), Then::Reset)).await;
}

#[tokio::test]
async fn closed_after_an_interim_response() {
    lost(raw("HTTP/1.1 100 Continue\r\n\r\n")).await;
}

#[tokio::test]
async fn reset_in_the_middle_of_the_body() {
    lost(then(head("Content-Length: 26") + r#"{"request_"#, Then::Reset)).await;
}

#[tokio::test]
async fn reset_instead_of_the_close_that_ends_the_body() {
    lost(then(head("Connection: close") + SUCCESS, Then::Reset)).await;
}

#[tokio::test]
async fn reset_after_the_complete_response_succeeds() {
    succeeds(then(success(), Then::Reset)).await;
}

#[tokio::test]
async fn closed_after_the_complete_response_succeeds() {
    succeeds(raw(success())).await;
}

#[tokio::test]
async fn hanging_before_the_head() {
    times_out(Step::Hang).await;
}

#[tokio::test]
async fn hanging_in_the_middle_of_the_head() {
    times_out(then("HTTP/1.1 200 OK\r\nContent-Le", Then::Hang)).await;
}

#[tokio::test]
async fn hanging_after_the_head() {
    times_out(then(head("Content-Length: 26"), Then::Hang)).await;
}

#[tokio::test]
async fn hanging_in_the_middle_of_the_body() {
    times_out(then(head("Content-Length: 26") + r#"{"request_"#, Then::Hang)).await;
}

#[tokio::test]
async fn hanging_instead_of_the_close_that_ends_the_body() {
    times_out(then(head("X: y") + SUCCESS, Then::Hang)).await;
}

/// The caller set no deadline, so `upstream.timeout` ends the call.
#[tokio::test]
async fn hanging_longer_than_the_upstream_timeout() {
    let emulator = emulator().await;
    let gateway = gateway(&emulator.endpoint(), &[("SCM_GATEWAY__UPSTREAM__TIMEOUT", "500ms")]).await;
    let pair = Pair { emulator, gateway };
    let status = pair.call(Step::Hang, 1, None).await.unwrap_err();
    expect(&status, 1, Code::DeadlineExceeded, "DEADLINE");
    pair.emulator.wait_for_open_connections(0).await;
    pair.next_is_good().await;
}

#[tokio::test]
async fn head_that_drips_a_byte_a_second() {
    times_out(Step::Drip { head: Vec::new(), bytes: success().into(), every: Duration::from_secs(1) }).await;
}

#[tokio::test]
async fn body_that_drips_a_byte_a_second() {
    let head = head("Content-Length: 26").into();
    times_out(Step::Drip { head, bytes: SUCCESS.into(), every: Duration::from_secs(1) }).await;
}

#[tokio::test]
async fn response_that_drips_before_the_deadline_succeeds() {
    succeeds(Step::Drip { head: Vec::new(), bytes: success().into(), every: Duration::from_millis(1) }).await;
}

/// SCM closes the connection before the next call.
#[tokio::test]
async fn idle_connection_closed_between_two_calls() {
    let pair = Pair::new().await;
    pair.call(raw(success()), 1, None).await.unwrap();
    pair.emulator.wait_for_open_connections(0).await;
    pair.next_is_good().await;
    assert_eq!(pair.emulator.connections(), 2);
}

/// SCM closes the connection while the next call uses it.
#[tokio::test]
async fn idle_connection_closed_as_the_next_call_uses_it() {
    let pair = Pair::new().await;
    pair.next_is_good().await;
    pair.emulator.script(Step::CloseUnread);
    pair.next_is_good().await;
    assert_eq!((pair.emulator.connections(), pair.emulator.steps_left()), (2, 0));
}

#[tokio::test]
async fn idle_connection_is_reused() {
    let pair = Pair::new().await;
    for _ in 0..5 {
        pair.next_is_good().await;
    }
    assert_eq!(pair.emulator.connections(), 1);
}

#[tokio::test]
async fn configured_proxy_is_used() {
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    let emulator = emulator().await;
    let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__UPSTREAM__PROXY", &url)]).await;
    let mut client = gateway.client.clone();
    let call = tokio::spawn(async move { client.save_info(sample()).await });
    let (stream, _) = proxy.accept().await.unwrap();
    let line = BufReader::new(stream).lines().next_line().await.unwrap().unwrap();
    assert!(line.starts_with(&format!("POST {}/v2/", emulator.endpoint())), "{line}");
    assert_eq!(emulator.connections(), 0);
    call.abort();
}
