//! Status lines and headers: interim responses, redirects, other statuses and endless heads.

use scm_emulator::{Reply, Step, Then};

use super::{Pair, SUCCESS, head, malformed, raw, succeeds, success, then, times_out};
use crate::harness::emulator;

/// Asserts that the body of a success with this status is malformed.
async fn not_a_success(status: u16) {
    let seen = malformed(Step::Reply(Reply::json(status, SUCCESS))).await;
    assert_eq!(seen.metadata["http_status"], status.to_string());
}

/// Asserts that a redirect is not followed, neither to another host nor to the same one.
async fn redirect(status: u16) {
    let pair = Pair::new().await;
    let elsewhere = emulator().await;
    for location in [format!("{}/v2/x", elsewhere.endpoint()), "/v2/elsewhere".to_owned()] {
        let reply = Reply::json(status, SUCCESS).header("Location", location);
        let seen = pair.malformed(Step::Reply(reply)).await;
        assert_eq!(seen.metadata["http_status"], status.to_string());
    }
    assert_eq!(elsewhere.connections(), 0);
    assert!(pair.emulator.journal().iter().all(|sent| sent.target.ends_with("/save")));
}

/// Asserts that any number of interim responses may come before the response.
async fn flood(interim: &str) {
    succeeds(then(interim.repeat(5_000) + &success(), Then::KeepAlive)).await;
}

#[tokio::test]
async fn flood_of_100() {
    flood("HTTP/1.1 100 Continue\r\n\r\n").await;
}

#[tokio::test]
async fn flood_of_102() {
    flood("HTTP/1.1 102 Processing\r\n\r\n").await;
}

#[tokio::test]
async fn flood_of_103() {
    flood("HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nContent-Length: 9\r\n\r\n").await;
}

#[tokio::test]
async fn endless_flood_of_103() {
    let chunk = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(1_000).into();
    times_out(Step::Endless { head: Vec::new(), chunk }).await;
}

/// RFC 9112, 5.2: a client replaces obsolete line folding by spaces.
#[tokio::test]
async fn folded_header() {
    succeeds(then(head("X-Note: first\r\n second\r\n\tthird\r\nContent-Length: 26") + SUCCESS, Then::KeepAlive)).await;
}

#[tokio::test]
async fn unrequested_protocol_switch() {
    let response = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
    let pair = Pair::new().await;
    let seen = pair.malformed(then(response, Then::Hang)).await;
    assert_eq!(seen.metadata["http_status"], "101");
    pair.emulator.wait_for_open_connections(1).await;
}

#[tokio::test]
async fn redirect_301() {
    redirect(301).await;
}

#[tokio::test]
async fn redirect_302() {
    redirect(302).await;
}

#[tokio::test]
async fn redirect_303() {
    redirect(303).await;
}

#[tokio::test]
async fn redirect_307() {
    redirect(307).await;
}

#[tokio::test]
async fn redirect_308() {
    redirect(308).await;
}

#[tokio::test]
async fn status_201() {
    not_a_success(201).await;
}

#[tokio::test]
async fn status_204() {
    let seen = malformed(Step::Reply(Reply::new(204))).await;
    assert_eq!(seen.metadata["http_status"], "204");
}

#[tokio::test]
async fn status_206() {
    not_a_success(206).await;
}

#[tokio::test]
async fn status_304() {
    let seen = malformed(Step::Reply(Reply::new(304))).await;
    assert_eq!(seen.metadata["http_status"], "304");
}

#[tokio::test]
async fn status_600() {
    not_a_success(600).await;
}

#[tokio::test]
async fn status_999() {
    not_a_success(999).await;
}

#[tokio::test]
async fn status_1000() {
    malformed(raw(format!("HTTP/1.1 1000 OK\r\nContent-Length: 26\r\n\r\n{SUCCESS}"))).await;
}

#[tokio::test]
async fn status_99() {
    malformed(raw(format!("HTTP/1.1 099 OK\r\nContent-Length: 26\r\n\r\n{SUCCESS}"))).await;
}

#[tokio::test]
async fn not_http() {
    malformed(raw("SSH-2.0-OpenSSH_9.6\r\n\r\n")).await;
}

#[tokio::test]
async fn body_without_a_head() {
    malformed(raw(SUCCESS)).await;
}

#[tokio::test]
async fn http_2() {
    malformed(then(*b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80\0\x04\0\x01\0\0\0\x05\0\xff\xff\xff", Then::Hang)).await;
}

#[tokio::test]
async fn http_1_0_succeeds() {
    succeeds(raw(format!("HTTP/1.0 200 OK\r\n\r\n{SUCCESS}"))).await;
}

#[tokio::test]
async fn header_without_a_colon() {
    malformed(raw(head("Content-Length 26") + SUCCESS)).await;
}

#[tokio::test]
async fn header_with_a_nul() {
    malformed(raw(head("X: \0\r\nContent-Length: 26") + SUCCESS)).await;
}

/// The limit is about 400 KiB.
#[tokio::test]
async fn header_of_1_mib() {
    malformed(raw(head(&format!("X: {}\r\nContent-Length: 26", "x".repeat(1024 * 1024))) + SUCCESS)).await;
}

#[tokio::test]
async fn headers_of_1_mib() {
    let lines = format!("X: {}\r\n", "x".repeat(16 * 1024)).repeat(64);
    malformed(raw(head(&(lines + "Content-Length: 26")) + SUCCESS)).await;
}

/// The limit is 100 headers.
#[tokio::test]
async fn ten_thousand_headers() {
    malformed(raw(head(&("X: y\r\n".repeat(10_000) + "Content-Length: 26")) + SUCCESS)).await;
}

#[tokio::test]
async fn hundred_headers_of_300_kib_succeed() {
    let lines = format!("X: {}\r\n", "x".repeat(3 * 1024)).repeat(99);
    succeeds(then(head(&(lines + "Content-Length: 26")) + SUCCESS, Then::KeepAlive)).await;
}

#[tokio::test]
async fn endless_header() {
    malformed(Step::Endless { head: b"HTTP/1.1 200 OK\r\nX: ".to_vec(), chunk: vec![b'x'; 4096] }).await;
}

#[tokio::test]
async fn endless_reason_phrase() {
    malformed(Step::Endless { head: b"HTTP/1.1 200 ".to_vec(), chunk: vec![b'x'; 4096] }).await;
}

#[tokio::test]
async fn endless_empty_lines() {
    malformed(Step::Endless { head: Vec::new(), chunk: b"\r\n".repeat(1024) }).await;
}
