//! The length of a response body: wrong, ambiguous or endless.

use scm_emulator::{Reply, Step, Then};

use super::{Pair, SUCCESS, head, lost, malformed, raw, succeeds, success, then, times_out, too_large};
use crate::harness::sample;

const CHUNKED: &str = "Transfer-Encoding: chunked";

/// A second response, which belongs to no request.
const SMUGGLED: &str = "HTTP/1.1 400 Bad Request\r\nContent-Length: 25\r\n\r\n{\"error_code\":\"SCM.0010\"}";

/// Sends spaces, which JSON allows after a value, so that only the size is wrong.
fn endless(head: impl Into<Vec<u8>>) -> Step {
    Step::Endless { head: head.into(), chunk: vec![b' '; 64 * 1024] }
}

fn endless_chunks(head: impl Into<Vec<u8>>) -> Step {
    Step::Endless { head: head.into(), chunk: format!("{:x}\r\n{}\r\n", 64 * 1024, " ".repeat(64 * 1024)).into() }
}

#[tokio::test]
async fn truncated_before_the_length() {
    lost(raw(head("Content-Length: 26") + &SUCCESS[..25])).await;
}

/// The JSON is complete, and the body is not.
#[tokio::test]
async fn length_longer_than_the_body() {
    lost(raw(head("Content-Length: 27") + SUCCESS)).await;
}

#[tokio::test]
async fn length_longer_than_the_body_on_an_open_connection() {
    times_out(then(head("Content-Length: 27") + SUCCESS, Then::Hang)).await;
}

#[tokio::test]
async fn length_shorter_than_the_body() {
    malformed(then(head("Content-Length: 25") + SUCCESS, Then::KeepAlive)).await;
}

#[tokio::test]
async fn truncated_in_the_middle_of_a_chunk() {
    lost(raw(head(CHUNKED) + "1a\r\n" + &SUCCESS[..10])).await;
}

#[tokio::test]
async fn truncated_before_the_last_chunk() {
    lost(raw(head(CHUNKED) + "1a\r\n" + SUCCESS + "\r\n")).await;
}

#[tokio::test]
async fn truncated_in_the_middle_of_the_last_chunk() {
    lost(raw(head(CHUNKED) + "1a\r\n" + SUCCESS + "\r\n0\r\n")).await;
}

#[tokio::test]
async fn chunked_body_succeeds() {
    let body = format!("a;x=y\r\n{}\r\n10\r\n{}\r\n0\r\nX: y\r\n\r\n", &SUCCESS[..10], &SUCCESS[10..]);
    succeeds(then(head(CHUNKED) + &body, Then::KeepAlive)).await;
}

#[tokio::test]
async fn body_that_ends_with_the_connection_succeeds() {
    succeeds(raw(head("X: y") + SUCCESS)).await;
}

/// The missing byte is an error of JSON, not of HTTP.
#[tokio::test]
async fn body_that_ends_with_the_connection_in_mid_json() {
    malformed(raw(head("X: y") + &SUCCESS[..25])).await;
}

#[tokio::test]
async fn chunk_size_that_is_not_a_number() {
    malformed(raw(head(CHUNKED) + "zz\r\n" + SUCCESS + "\r\n0\r\n\r\n")).await;
}

#[tokio::test]
async fn chunk_size_that_overflows() {
    malformed(raw(head(CHUNKED) + "fffffffffffffffff\r\n" + SUCCESS)).await;
}

#[tokio::test]
async fn chunk_longer_than_its_size() {
    malformed(raw(head(CHUNKED) + "10\r\n" + SUCCESS + "\r\n0\r\n\r\n")).await;
}

#[tokio::test]
async fn endless_chunk_extension() {
    malformed(Step::Endless { head: (head(CHUNKED) + "1a;").into(), chunk: vec![b'x'; 1024] }).await;
}

#[tokio::test]
async fn endless_trailers() {
    let head = head(CHUNKED) + "1a\r\n" + SUCCESS + "\r\n0\r\n";
    malformed(Step::Endless { head: head.into(), chunk: b"X: y\r\n".to_vec() }).await;
}

/// The chunks count (RFC 9112, 6.3), whatever the length says.
#[tokio::test]
async fn length_and_chunks_succeed() {
    let head = head("Content-Length: 3\r\nTransfer-Encoding: chunked");
    succeeds(then(head + "1a\r\n" + SUCCESS + "\r\n0\r\n\r\n", Then::KeepAlive)).await;
}

#[tokio::test]
async fn length_and_chunks_without_chunks() {
    malformed(raw(head("Content-Length: 26\r\nTransfer-Encoding: chunked") + SUCCESS)).await;
}

#[tokio::test]
async fn two_different_lengths() {
    malformed(raw(head("Content-Length: 26\r\nContent-Length: 27") + SUCCESS)).await;
}

#[tokio::test]
async fn two_different_lengths_in_one_line() {
    malformed(raw(head("Content-Length: 27, 26") + SUCCESS)).await;
}

#[tokio::test]
async fn same_length_twice_succeeds() {
    succeeds(raw(head("Content-Length: 26\r\nContent-Length: 26") + SUCCESS)).await;
}

#[tokio::test]
async fn negative_length() {
    malformed(raw(head("Content-Length: -1") + SUCCESS)).await;
}

#[tokio::test]
async fn length_with_a_sign() {
    malformed(raw(head("Content-Length: +26") + SUCCESS)).await;
}

#[tokio::test]
async fn length_that_overflows() {
    malformed(raw(head("Content-Length: 99999999999999999999") + SUCCESS)).await;
}

/// A second response after the first one is never used for the next call.
#[tokio::test]
async fn bytes_after_the_body() {
    let pair = Pair::new().await;
    for _ in 0..20 {
        pair.call(then(success() + SMUGGLED, Then::KeepAlive), 1, None).await.unwrap();
        pair.next_is_good().await;
    }
}

#[tokio::test]
async fn bytes_after_the_last_chunk() {
    let pair = Pair::new().await;
    let response = head(CHUNKED) + "1a\r\n" + SUCCESS + "\r\n0\r\n\r\n" + SMUGGLED;
    pair.call(then(response, Then::KeepAlive), 1, None).await.unwrap();
    pair.next_is_good().await;
}

#[tokio::test]
async fn body_after_a_204() {
    let response = format!("HTTP/1.1 204 No Content\r\n\r\n{SMUGGLED}");
    malformed(then(response, Then::KeepAlive)).await;
}

#[tokio::test]
async fn body_after_a_304() {
    let response = format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 26\r\n\r\n{SUCCESS}");
    malformed(then(response, Then::KeepAlive)).await;
}

#[tokio::test]
async fn body_of_100_mib() {
    too_large(endless(head("Content-Length: 104857600"))).await;
}

#[tokio::test]
async fn endless_body() {
    too_large(endless(head("X: y"))).await;
}

#[tokio::test]
async fn endless_body_in_chunks() {
    too_large(endless_chunks(head(CHUNKED))).await;
}

#[tokio::test]
async fn endless_error_body() {
    let head = format!("HTTP/1.1 503 Service Unavailable\r\n{CHUNKED}\r\n\r\n");
    too_large(endless_chunks(head)).await;
}

#[tokio::test]
async fn body_one_byte_over_the_limit() {
    too_large(Step::Reply(Reply::new(200).body(padded(1024 * 1024 + 1)))).await;
}

#[tokio::test]
async fn body_at_the_limit_succeeds() {
    succeeds(Step::Reply(Reply::new(200).body(padded(1024 * 1024)))).await;
}

fn padded(length: usize) -> Vec<u8> {
    let mut body = SUCCESS.as_bytes().to_vec();
    body.resize(length, b' ');
    body
}

/// The connection of an invalid response is not reused.
#[tokio::test]
async fn invalid_responses_in_a_row() {
    let pair = Pair::new().await;
    for step in [
        then(head("Content-Length: 25") + SUCCESS, Then::KeepAlive),
        endless(head("Content-Length: 104857600")),
        then(head("Content-Length: 26, 27") + SUCCESS, Then::KeepAlive),
        then(head(CHUNKED) + "zz\r\n", Then::KeepAlive),
        then(success() + SMUGGLED, Then::KeepAlive),
    ] {
        pair.emulator.script(step);
        let _ = pair.gateway.save(sample()).await;
        pair.next_is_good().await;
    }
    pair.emulator.wait_for_open_connections(1).await;
}
