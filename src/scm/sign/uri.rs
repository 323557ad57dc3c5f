//! The canonical forms of path and query, and the one encoding that both and the wire use (RFC 3986 unreserved).

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Everything but `A-Z a-z 0-9 - _ . ~` is encoded.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Encodes a path segment, query key or query value: `%XX`, upper-case, a blank as `%20`.
pub fn encode(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, RESERVED).into()
}

/// Decodes the path once, encodes each segment and ends it with a slash, which the request itself does not have.
///
/// An escaped slash becomes a real one here, so signed path and sent path would differ: ids must not hold any.
pub fn canonical_path(path: &str) -> String {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let mut canonical = String::with_capacity(decoded.len() + 1);
    for segment in decoded.strip_suffix('/').unwrap_or(&decoded).split('/') {
        canonical.extend(utf8_percent_encode(segment, RESERVED));
        canonical.push('/');
    }
    canonical
}

/// Sorts the pairs by key, then by value, as plain text; always `key=value`. This very string is to be sent.
pub fn canonical_query(pairs: &[(&str, &str)]) -> String {
    let mut sorted = pairs.to_vec();
    sorted.sort_unstable();
    sorted.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect::<Vec<_>>().join("&")
}
