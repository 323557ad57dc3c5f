//! The canonical forms of path and query. Signature and request use the same encoding (RFC 3986 unreserved).

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::scan::ByteSet;

/// All characters except `A-Z a-z 0-9 - _ . ~`.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

static UNRESERVED: ByteSet = ByteSet::alphanumeric_and(b"-_.~");

/// The characters of encoded segments without an escape.
static SEGMENTS: ByteSet = ByteSet::alphanumeric_and(b"-_.~/");

/// Encodes a path segment, query key or query value: `%XX` in upper case, a space as `%20`.
pub fn encode(text: &str) -> Cow<'_, str> {
    if UNRESERVED.has_all(text) { text.into() } else { utf8_percent_encode(text, RESERVED).into() }
}

/// Decodes the path once, encodes each segment and adds a trailing slash, which the request itself does not have.
///
/// An escaped slash is decoded here, so the signed path would differ from the sent one. Ids must therefore not contain
/// a slash.
pub fn canonical_path(path: &str) -> Cow<'_, str> {
    if SEGMENTS.has_all(path) {
        return if path.ends_with('/') { path.into() } else { [path, "/"].concat().into() };
    }
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let mut canonical = String::with_capacity(decoded.len() + 1);
    for segment in decoded.strip_suffix('/').unwrap_or(&decoded).split('/') {
        canonical.extend(utf8_percent_encode(segment, RESERVED));
        canonical.push('/');
    }
    canonical.into()
}

/// Sorts the decoded pairs by key, then by value, and formats each as `key=value`. The request must use this exact
/// string.
pub fn canonical_query<K: AsRef<str>, V: AsRef<str>>(pairs: &[(K, V)]) -> String {
    let mut sorted: Vec<_> = pairs.iter().map(|(key, value)| (key.as_ref(), value.as_ref())).collect();
    sorted.sort_unstable();
    let mut query = String::new();
    for (key, value) in sorted {
        query.push_str(if query.is_empty() { "" } else { "&" });
        query.extend([&*encode(key), "=", &*encode(value)]);
    }
    query
}
