//! The fuzz targets: what holds for every input of every parser of outside bytes.
//!
//! A target is a function that panics if a property does not hold. Those that need the internals of a module are in the
//! `fuzz.rs` of that module. `tests/fuzz` has one program for each target, and the inputs that the tests here replay.
//! Compiled only for tests and by cargo-fuzz, which sets `cfg(fuzzing)`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{ops::telemetry::traceparent as trace, scm::sign, validate};

pub mod responses;
#[cfg(test)]
mod tests;

/// Fuzzes the trace context, in header lines: a `traceparent` is sent on unchanged in the form of version 00, or ignored.
pub fn traceparent(data: &[u8]) {
    let headers = headers(data);
    let parent = || -> Option<&str> {
        let mut values = headers.get_all(&trace::TRACEPARENT).iter();
        values.next().filter(|_| values.next().is_none())?.to_str().ok()
    };
    let Some(sent) = trace::header(&trace::extract(&headers)) else { return };
    let sent = sent.to_str().expect("hex digits and hyphens");
    let received = parent().expect("exactly one header");
    assert_eq!((sent.len(), &sent[..3], &sent[2..53]), (55, "00-", &received[2..53]));
    let again = HeaderMap::from_iter([(trace::TRACEPARENT.clone(), sent.parse().expect("ASCII"))]);
    assert_eq!(trace::header(&trace::extract(&again)).expect("a valid context"), sent);
}

/// Fuzzes the validation of signing requests, given as PEM or DER: an invalid one is not valid for a domain either.
pub fn csr(data: &[u8]) {
    const DOMAIN: Option<&str> = Some("www.example.com");
    let pem = match str::from_utf8(data) {
        Ok(text) if text.contains("-----") => text.to_owned(),
        _ => {
            format!("-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----", STANDARD.encode(data))
        }
    };
    let verdict = validate::csr::check(&pem, None);
    assert!(verdict.is_err() || pem.len() <= 5120);
    assert!(verdict.is_ok() || validate::csr::check(&pem, DOMAIN).is_err());
    if verdict.is_ok() && pem.len() < 5110 {
        assert_eq!(validate::csr::check(&format!("\n {pem} \r\n"), None), verdict, "space around the block");
    }
}

/// Fuzzes the signer with a request of lines (path, query, headers, an empty line, the body): the canonical form has six
/// parts, and one line for each header.
pub fn canonical_request(data: &[u8]) {
    let (head, body) = head_and_body(data);
    let Ok(head) = str::from_utf8(head) else { return };
    let mut lines = head.lines();
    let path = lines.next().unwrap_or_default();
    let mut query: Vec<_> =
        lines.next().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')).collect();
    let canonical_query = sign::uri::canonical_query(&query);
    let headers: Vec<_> = lines.filter_map(|line| line.split_once(':')).collect();
    let parts = sign::Parts { method: "POST", path, query: &canonical_query, headers: &headers, body };
    let canonical = sign::canonical(&parts);
    let lines: Vec<_> = canonical.request.split('\n').collect();
    let signed = headers.iter().filter(|(name, _)| !name.contains('_')).count();
    assert_eq!(lines.len(), 6 + signed);
    assert!(lines[1].ends_with('/') && lines[1].is_ascii() && lines[2].is_ascii());
    query.reverse();
    assert_eq!(canonical_query, sign::uri::canonical_query(&query), "the order of the query does not matter");
}

/// Returns the valid headers among lines `NAME: VALUE`.
fn headers(lines: &[u8]) -> HeaderMap {
    let header = |line: &[u8]| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        Some((name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?))
    };
    let mut headers = HeaderMap::new();
    for (name, value) in lines.split(|byte| *byte == b'\n').filter_map(header) {
        headers.append(name, value);
    }
    headers
}

/// Splits at the first empty line. Without one there is no body.
fn head_and_body(data: &[u8]) -> (&[u8], &[u8]) {
    match data.windows(2).position(|pair| pair == b"\n\n") {
        Some(end) => (&data[..end], &data[end + 2..]),
        None => (data, b""),
    }
}
