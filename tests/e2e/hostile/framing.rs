//! Where an answer's body ends: said wrongly, twice, or never.

use scm_emulator::{Reply, Step, Then};

use super::{Pair, SUCCESS, good, head, lost, malformed, overdue, raw, success, then, too_large};
use crate::harness::sample;

const CHUNKED: &str = "Transfer-Encoding: chunked";

/// What nobody asked for: an answer that says something else.
const SMUGGLED: &str = "HTTP/1.1 400 Bad Request\r\nContent-Length: 25\r\n\r\n{\"error_code\":\"SCM.0010\"}";

/// Blanks, which JSON allows after a value: only the size is wrong with them.
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

/// Whole JSON, but not the whole body.
#[tokio::test]
async fn a_length_longer_than_the_body() {
    lost(raw(head("Content-Length: 27") + SUCCESS)).await;
}

#[tokio::test]
async fn a_length_longer_than_the_body_on_a_connection_that_stays() {
    overdue(then(head("Content-Length: 27") + SUCCESS, Then::Hang)).await;
}

#[tokio::test]
async fn a_length_shorter_than_the_body() {
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
async fn a_chunked_body_is_good() {
    let body = format!("a;x=y\r\n{}\r\n10\r\n{}\r\n0\r\nX: y\r\n\r\n", &SUCCESS[..10], &SUCCESS[10..]);
    good(then(head(CHUNKED) + &body, Then::KeepAlive)).await;
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_is_good() {
    good(raw(head("X: y") + SUCCESS)).await;
}

/// HTTP cannot tell that something is missing; JSON can.
#[tokio::test]
async fn a_body_that_ends_with_the_connection_in_mid_json() {
    malformed(raw(head("X: y") + &SUCCESS[..25])).await;
}

#[tokio::test]
async fn a_chunk_size_that_is_no_number() {
    malformed(raw(head(CHUNKED) + "zz\r\n" + SUCCESS + "\r\n0\r\n\r\n")).await;
}

#[tokio::test]
async fn a_chunk_size_beyond_all_numbers() {
    malformed(raw(head(CHUNKED) + "fffffffffffffffff\r\n" + SUCCESS)).await;
}

#[tokio::test]
async fn a_chunk_longer_than_its_size() {
    malformed(raw(head(CHUNKED) + "10\r\n" + SUCCESS + "\r\n0\r\n\r\n")).await;
}

#[tokio::test]
async fn a_chunk_extension_without_end() {
    malformed(Step::Endless { head: (head(CHUNKED) + "1a;").into(), chunk: vec![b'x'; 1024] }).await;
}

#[tokio::test]
async fn trailers_without_end() {
    let head = head(CHUNKED) + "1a\r\n" + SUCCESS + "\r\n0\r\n";
    malformed(Step::Endless { head: head.into(), chunk: b"X: y\r\n".to_vec() }).await;
}

/// The chunks count (RFC 9112, 6.3), whatever the length says.
#[tokio::test]
async fn both_length_and_chunks() {
    let head = head("Content-Length: 3\r\nTransfer-Encoding: chunked");
    good(then(head + "1a\r\n" + SUCCESS + "\r\n0\r\n\r\n", Then::KeepAlive)).await;
}

#[tokio::test]
async fn both_length_and_chunks_over_a_body_without_chunks() {
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
async fn the_same_length_twice_is_good() {
    good(raw(head("Content-Length: 26\r\nContent-Length: 26") + SUCCESS)).await;
}

#[tokio::test]
async fn a_length_below_zero() {
    malformed(raw(head("Content-Length: -1") + SUCCESS)).await;
}

#[tokio::test]
async fn a_length_with_a_sign() {
    malformed(raw(head("Content-Length: +26") + SUCCESS)).await;
}

#[tokio::test]
async fn a_length_beyond_all_numbers() {
    malformed(raw(head("Content-Length: 99999999999999999999") + SUCCESS)).await;
}

/// A second answer behind the first one is never the next call's.
#[tokio::test]
async fn bytes_after_the_end() {
    let pair = Pair::new().await;
    for _ in 0..20 {
        pair.call(then(success() + SMUGGLED, Then::KeepAlive), 1, None).await.unwrap();
        pair.next_is_good().await;
    }
}

#[tokio::test]
async fn bytes_after_the_last_chunk() {
    let pair = Pair::new().await;
    let answer = head(CHUNKED) + "1a\r\n" + SUCCESS + "\r\n0\r\n\r\n" + SMUGGLED;
    pair.call(then(answer, Then::KeepAlive), 1, None).await.unwrap();
    pair.next_is_good().await;
}

#[tokio::test]
async fn a_body_behind_a_204() {
    let answer = format!("HTTP/1.1 204 No Content\r\n\r\n{SMUGGLED}");
    malformed(then(answer, Then::KeepAlive)).await;
}

#[tokio::test]
async fn a_body_behind_a_304() {
    let answer = format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 26\r\n\r\n{SUCCESS}");
    malformed(then(answer, Then::KeepAlive)).await;
}

#[tokio::test]
async fn a_body_of_100_mib() {
    too_large(endless(head("Content-Length: 104857600"))).await;
}

#[tokio::test]
async fn a_body_without_end() {
    too_large(endless(head("X: y"))).await;
}

#[tokio::test]
async fn chunks_without_end() {
    too_large(endless_chunks(head(CHUNKED))).await;
}

#[tokio::test]
async fn an_error_without_end() {
    let head = format!("HTTP/1.1 503 Service Unavailable\r\n{CHUNKED}\r\n\r\n");
    too_large(endless_chunks(head)).await;
}

#[tokio::test]
async fn a_body_one_byte_over_the_cap() {
    too_large(Step::Reply(Reply::new(200).body(padded(1024 * 1024 + 1)))).await;
}

#[tokio::test]
async fn a_body_at_the_cap_is_good() {
    good(Step::Reply(Reply::new(200).body(padded(1024 * 1024)))).await;
}

fn padded(length: usize) -> Vec<u8> {
    let mut body = SUCCESS.as_bytes().to_vec();
    body.resize(length, b' ');
    body
}

/// What such answers leave behind is no connection that is used again.
#[tokio::test]
async fn many_of_them_in_a_row() {
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
