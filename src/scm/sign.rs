//! The vendor's signature scheme, SDK-HMAC-SHA256: one pure function for each of its four steps.
//!
//! canonical request → string to sign → signature → `Authorization`. Time and credentials are arguments.
//! `tests/sign_vectors.rs` compares every step with signatures of the vendor's SDK.

use std::borrow::Cow;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

pub mod signed_request;
pub mod uri;

/// The name of the scheme, at the start of the `Authorization` header and of the string to sign.
pub const ALGORITHM: &str = "SDK-HMAC-SHA256";

/// The header with the time of signing, `YYYYMMDDTHHMMSSZ`.
pub const DATE_HEADER: &str = "x-sdk-date";

/// The header that replaces the hash of the body if it is signed.
const PAYLOAD_HASH_HEADER: &str = "x-sdk-content-sha256";

/// The length of a signature, which is the end of the `Authorization` header.
const SIGNATURE_LEN: usize = 64;

/// The signed parts of a request. Has no `Debug`, because a header may be a security token.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The path, encoded or not: both have the same canonical form.
    pub path: &'a str,
    /// The query in the form that [`uri::canonical_query`] returns, as it is sent.
    pub query: &'a str,
    /// The headers to sign: names in any case and order, values as they are sent.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body as it is sent.
    pub body: &'a [u8],
}

/// The result of step 1: the canonical request and the list of its headers.
pub struct Canonical {
    /// The six parts, joined by line feeds. Wiped on drop, because they may include a security token.
    pub request: Zeroizing<String>,
    /// The names of the signed headers, joined by `;`.
    pub signed_headers: String,
}

/// Returns the canonical form of a request.
pub fn canonical(parts: &Parts<'_>) -> Canonical {
    let headers = sorted(parts.headers);
    let signed_headers = names(&headers);
    let mut request = Zeroizing::new(String::with_capacity(capacity(parts)));
    write(parts, &headers, &signed_headers, |text| request.push_str(text));
    Canonical { request, signed_headers }
}

/// Returns the headers to sign, sorted by their lower-case name.
fn sorted<'a>(headers: &[(&'a str, &'a str)]) -> Vec<(Cow<'a, str>, &'a str)> {
    let mut sorted = Vec::with_capacity(headers.len());
    let signed = headers.iter().filter(|(name, _)| !name.contains('_'));
    sorted.extend(signed.map(|(name, value)| (lower_case(name), value.trim_matches([' ', '\t']))));
    sorted.sort();
    sorted
}

/// Converts a name to lower case. Borrows it if it already is, like most names.
fn lower_case(name: &str) -> Cow<'_, str> {
    let has_upper = name.bytes().any(|byte| byte.is_ascii_uppercase());
    if has_upper { name.to_ascii_lowercase().into() } else { name.into() }
}

/// Converts a method to upper case. Borrows it if it already is, like those of all RPCs.
fn upper_case(method: &str) -> Cow<'_, str> {
    let has_lower = method.bytes().any(|byte| byte.is_ascii_lowercase());
    if has_lower { method.to_ascii_uppercase().into() } else { method.into() }
}

fn names(headers: &[(Cow<'_, str>, &str)]) -> String {
    let mut names = String::with_capacity(headers.iter().map(|(name, _)| name.len() + 1).sum());
    for (index, (name, _)) in headers.iter().enumerate() {
        names.push_str(if index == 0 { "" } else { ";" });
        names.push_str(name);
    }
    names
}

/// Writes the canonical request in pieces, so that hashing needs no copy.
fn write(parts: &Parts<'_>, headers: &[(Cow<'_, str>, &str)], signed_headers: &str, mut put: impl FnMut(&str)) {
    put(&upper_case(parts.method));
    put("\n");
    put(&uri::canonical_path(parts.path));
    put("\n");
    put(parts.query);
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

/// Returns an upper bound of the size of the canonical request, because a growing string leaves copies behind that are
/// not wiped.
fn capacity(parts: &Parts<'_>) -> usize {
    let headers = parts.headers.iter().map(|(name, value)| 2 * name.len() + value.len() + 3).sum::<usize>();
    parts.method.len() + 3 * parts.path.len() + parts.query.len() + headers + 128
}

/// Returns the SHA-256 of the body in lower-case hex.
pub fn payload_hash(body: &[u8]) -> String {
    Hex::of(Sha256::digest(body).into()).text().to_owned()
}

/// Returns the string to sign (step 2). `date` is the value of [`DATE_HEADER`].
pub fn string_to_sign(date: &str, canonical_request: &str) -> String {
    lines_to_sign(date, &Hex::of(Sha256::digest(canonical_request).into())).concat()
}

fn lines_to_sign<'a>(date: &'a str, canonical_request: &'a Hex) -> [&'a str; 5] {
    [ALGORITHM, "\n", date, "\n", canonical_request.text()]
}

/// Returns the signature (step 3): the HMAC-SHA256 with the secret key, in lower-case hex.
pub fn signature(secret_key: &str, string_to_sign: &str) -> String {
    hmac(secret_key, &[string_to_sign]).text().to_owned()
}

fn hmac(secret_key: &str, pieces: &[&str]) -> Hex {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret_key.as_bytes()).expect("HMAC accepts keys of any length");
    pieces.iter().for_each(|piece| mac.update(piece.as_bytes()));
    Hex::of(mac.finalize().into_bytes().into())
}

/// Returns the value of the `Authorization` header (step 4).
pub fn authorization(access_key: &str, signed_headers: &str, signature: &str) -> String {
    [ALGORITHM, " Access=", access_key, ", SignedHeaders=", signed_headers, ", Signature=", signature].concat()
}

/// Runs all four steps and returns the value of the `Authorization` header.
pub fn sign(parts: &Parts<'_>, date: &str, access_key: &str, secret_key: &str) -> String {
    let headers = sorted(parts.headers);
    let signed_headers = names(&headers);
    let mut hasher = Sha256::new();
    write(parts, &headers, &signed_headers, |text| hasher.update(text));
    let canonical_request = Hex::of(hasher.finalize().into());
    let signature = hmac(secret_key, &lines_to_sign(date, &canonical_request));
    authorization(access_key, &signed_headers, signature.text())
}

/// A hash in lower-case hex.
struct Hex([u8; SIGNATURE_LEN]);

impl Hex {
    fn of(hash: [u8; 32]) -> Self {
        let mut hex = [0; SIGNATURE_LEN];
        base16ct::lower::encode(&hash, &mut hex).expect("the buffer has two digits for each byte");
        Self(hex)
    }

    fn text(&self) -> &str {
        str::from_utf8(&self.0).expect("hex digits are ASCII")
    }
}
