//! The vendor's signature, SDK-HMAC-SHA256: pure functions, one per step of its four.
//!
//! canonical request → string to sign → signature → `Authorization`. Time and key are passed in, nothing is kept.
//! `tests/sign_vectors.rs` holds every step against signatures made with the vendor's own SDK.

use std::borrow::Cow;

use base16ct::lower::encode_string as hex;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

pub mod uri;

/// The name of the scheme, first word of the header and first line of the string to sign.
pub const ALGORITHM: &str = "SDK-HMAC-SHA256";

/// The header that holds the time of signing, `YYYYMMDDTHHMMSSZ`.
pub const DATE_HEADER: &str = "x-sdk-date";

/// A header that, when it is signed, gives the payload hash instead of the body.
const PAYLOAD_HASH_HEADER: &str = "x-sdk-content-sha256";

/// What of a request is signed. May hold a security token: no `Debug`.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The path, as it goes out or before encoding: both give the same canonical form.
    pub path: &'a str,
    /// The query as decoded pairs.
    pub query: &'a [(&'a str, &'a str)],
    /// The headers to sign: names in any case and order, values as they go out.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body bytes as they go out.
    pub body: &'a [u8],
}

/// Step 1, the canonical request, and the list of headers that it covers.
pub struct Canonical {
    /// The six parts, joined by line feeds. May hold a security token: wiped when dropped.
    pub request: Zeroizing<String>,
    /// The names of the signed headers, joined by `;`.
    pub signed_headers: String,
}

/// Brings a request into its canonical form.
pub fn canonical(parts: &Parts<'_>) -> Canonical {
    let mut headers: Vec<(Cow<'_, str>, &str)> = parts
        .headers
        .iter()
        .filter(|(name, _)| !name.contains('_'))
        .map(|(name, value)| (lower_case(name), value.trim_matches([' ', '\t'])))
        .collect();
    headers.sort();
    let signed_headers = headers.iter().map(|(name, _)| &**name).collect::<Vec<_>>().join(";");

    let mut request = Zeroizing::new(String::with_capacity(capacity(parts)));
    request.push_str(&parts.method.to_ascii_uppercase());
    request.push('\n');
    request.push_str(&uri::canonical_path(parts.path));
    request.push('\n');
    request.push_str(&uri::canonical_query(parts.query));
    request.push('\n');
    for (name, value) in &headers {
        request.push_str(name);
        request.push(':');
        request.push_str(value);
        request.push('\n');
    }
    request.push('\n');
    request.push_str(&signed_headers);
    request.push('\n');
    match headers.iter().find(|(name, _)| name == PAYLOAD_HASH_HEADER) {
        Some((_, hash)) => request.push_str(hash),
        None => request.push_str(&payload_hash(parts.body)),
    }
    Canonical { request, signed_headers }
}

/// As most names are.
fn lower_case(name: &str) -> Cow<'_, str> {
    let is_upper = name.bytes().any(|byte| byte.is_ascii_uppercase());
    if is_upper { name.to_ascii_lowercase().into() } else { name.into() }
}

/// Room for all of it: a string that grows leaves unwiped copies behind.
fn capacity(parts: &Parts<'_>) -> usize {
    let headers = parts.headers.iter().map(|(name, value)| 2 * name.len() + value.len() + 3).sum::<usize>();
    let query = parts.query.iter().map(|(key, value)| 3 * (key.len() + value.len()) + 2).sum::<usize>();
    parts.method.len() + 3 * parts.path.len() + query + headers + 128
}

/// The lower-case hex of SHA-256 over the body.
pub fn payload_hash(body: &[u8]) -> String {
    hex(&Sha256::digest(body))
}

/// Step 2: what the key signs. `date` is the value of [`DATE_HEADER`].
pub fn string_to_sign(date: &str, canonical_request: &str) -> String {
    format!("{ALGORITHM}\n{date}\n{}", hex(&Sha256::digest(canonical_request.as_bytes())))
}

/// Step 3: the lower-case hex of HMAC-SHA256 under the secret key as it is.
pub fn signature(secret_key: &str, string_to_sign: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret_key.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(string_to_sign.as_bytes());
    hex(&mac.finalize().into_bytes())
}

/// Step 4: the value of the `Authorization` header.
pub fn authorization(access_key: &str, signed_headers: &str, signature: &str) -> String {
    format!("{ALGORITHM} Access={access_key}, SignedHeaders={signed_headers}, Signature={signature}")
}

/// All four steps.
pub fn sign(parts: &Parts<'_>, date: &str, access_key: &str, secret_key: &str) -> String {
    let canonical = canonical(parts);
    let signature = signature(secret_key, &string_to_sign(date, &canonical.request));
    authorization(access_key, &canonical.signed_headers, &signature)
}
