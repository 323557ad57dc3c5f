//! The vendor's signature, SDK-HMAC-SHA256: pure functions, one per step of its four.
//!
//! canonical request → string to sign → signature → `Authorization`. Time and key are passed in, nothing is kept.
//! `tests/sign_vectors.rs` holds every step against signatures made with the vendor's own SDK.

use std::borrow::Cow;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

pub mod signed_request;
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
    let headers = sorted(parts.headers);
    let signed_headers = names(&headers);
    let mut request = Zeroizing::new(String::with_capacity(capacity(parts)));
    write(parts, &headers, &signed_headers, |text| request.push_str(text));
    Canonical { request, signed_headers }
}

/// The headers that are signed, by name, in lower case.
fn sorted<'a>(headers: &[(&'a str, &'a str)]) -> Vec<(Cow<'a, str>, &'a str)> {
    let mut sorted = Vec::with_capacity(headers.len());
    let signed = headers.iter().filter(|(name, _)| !name.contains('_'));
    sorted.extend(signed.map(|(name, value)| (lower_case(name), value.trim_matches([' ', '\t']))));
    sorted.sort();
    sorted
}

/// As most names are.
fn lower_case(name: &str) -> Cow<'_, str> {
    let is_upper = name.bytes().any(|byte| byte.is_ascii_uppercase());
    if is_upper { name.to_ascii_lowercase().into() } else { name.into() }
}

fn names(headers: &[(Cow<'_, str>, &str)]) -> String {
    let mut names = String::with_capacity(headers.iter().map(|(name, _)| name.len() + 1).sum());
    for (index, (name, _)) in headers.iter().enumerate() {
        names.push_str(if index == 0 { "" } else { ";" });
        names.push_str(name);
    }
    names
}

/// Writes the canonical request piece by piece: who only needs its hash keeps nothing of it.
fn write(parts: &Parts<'_>, headers: &[(Cow<'_, str>, &str)], signed_headers: &str, mut put: impl FnMut(&str)) {
    put(&parts.method.to_ascii_uppercase());
    put("\n");
    put(&uri::canonical_path(parts.path));
    put("\n");
    put(&uri::canonical_query(parts.query));
    put("\n");
    for (name, value) in headers {
        put(name);
        put(":");
        put(value);
        put("\n");
    }
    put("\n");
    put(signed_headers);
    put("\n");
    match headers.iter().find(|(name, _)| name == PAYLOAD_HASH_HEADER) {
        Some((_, hash)) => put(hash),
        None => put(Hex::of(Sha256::digest(parts.body).into()).text()),
    }
}

/// Room for all of it: a string that grows leaves unwiped copies behind.
fn capacity(parts: &Parts<'_>) -> usize {
    let headers = parts.headers.iter().map(|(name, value)| 2 * name.len() + value.len() + 3).sum::<usize>();
    let query = parts.query.iter().map(|(key, value)| 3 * (key.len() + value.len()) + 2).sum::<usize>();
    parts.method.len() + 3 * parts.path.len() + query + headers + 128
}

/// The lower-case hex of SHA-256 over the body.
pub fn payload_hash(body: &[u8]) -> String {
    Hex::of(Sha256::digest(body).into()).text().to_owned()
}

/// Step 2: what the key signs. `date` is the value of [`DATE_HEADER`].
pub fn string_to_sign(date: &str, canonical_request: &str) -> String {
    lines_to_sign(date, &Hex::of(Sha256::digest(canonical_request).into())).concat()
}

fn lines_to_sign<'a>(date: &'a str, canonical_request: &'a Hex) -> [&'a str; 5] {
    [ALGORITHM, "\n", date, "\n", canonical_request.text()]
}

/// Step 3: the lower-case hex of HMAC-SHA256 under the secret key as it is.
pub fn signature(secret_key: &str, string_to_sign: &str) -> String {
    keyed_hash(secret_key, &[string_to_sign]).text().to_owned()
}

fn keyed_hash(secret_key: &str, pieces: &[&str]) -> Hex {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret_key.as_bytes()).expect("HMAC takes a key of any length");
    pieces.iter().for_each(|piece| mac.update(piece.as_bytes()));
    Hex::of(mac.finalize().into_bytes().into())
}

/// Step 4: the value of the `Authorization` header.
pub fn authorization(access_key: &str, signed_headers: &str, signature: &str) -> String {
    [ALGORITHM, " Access=", access_key, ", SignedHeaders=", signed_headers, ", Signature=", signature].concat()
}

/// All four steps.
pub fn sign(parts: &Parts<'_>, date: &str, access_key: &str, secret_key: &str) -> String {
    let headers = sorted(parts.headers);
    let signed_headers = names(&headers);
    let mut canonical_request = Sha256::new();
    write(parts, &headers, &signed_headers, |text| canonical_request.update(text));
    let canonical_request = Hex::of(canonical_request.finalize().into());
    let signature = keyed_hash(secret_key, &lines_to_sign(date, &canonical_request));
    authorization(access_key, &signed_headers, signature.text())
}

/// A hash in lower-case hex.
struct Hex([u8; 64]);

impl Hex {
    fn of(hash: [u8; 32]) -> Self {
        let mut hex = [0; 64];
        base16ct::lower::encode(&hash, &mut hex).expect("two digits a byte");
        Self(hex)
    }

    fn text(&self) -> &str {
        str::from_utf8(&self.0).expect("digits are ASCII")
    }
}
