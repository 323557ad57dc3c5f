//! Fuzzes what a proxy answers.

use futures_util::FutureExt as _;

use super::tunnel::{MAX_HEAD, response};

/// Fuzzes the response to CONNECT: it is bounded, and what the tunnel gets begins after the end of a head.
pub fn proxy_response(data: &[u8]) {
    let mut rest = data;
    let outcome = response(&mut rest).now_or_never().expect("all bytes are there");
    let head = &data[..data.len() - rest.len()];
    assert!(head.len() <= MAX_HEAD);
    if outcome.is_ok() {
        assert!(head.starts_with(b"HTTP/1.") && (head.ends_with(b"\n\n") || head.ends_with(b"\n\r\n")));
    }
}
