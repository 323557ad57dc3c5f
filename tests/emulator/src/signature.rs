//! Verifies the signature `SDK-HMAC-SHA256` from the bytes received. It shares no code with the gateway, so that
//! both cannot have the same defect.

use std::time::{Duration, SystemTime};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::Account;
use crate::http::{Request, percent_decode};
use crate::time::parse_sdk_date;

const ALGORITHM: &str = "SDK-HMAC-SHA256";
const MAX_SKEW: Duration = Duration::from_secs(15 * 60);
const CONTENT_HASH: &str = "x-sdk-content-sha256";

/// The content of a request's `Authorization`.
#[derive(Debug, Clone)]
pub(crate) struct Claim<'a> {
    pub(crate) access_key: &'a str,
    pub(crate) signed_headers: Vec<&'a str>,
    signature: &'a str,
}

impl<'a> Claim<'a> {
    /// Parses exactly `SDK-HMAC-SHA256 Access=…, SignedHeaders=…, Signature=…`.
    pub(crate) fn of(request: &'a Request) -> Result<Self, &'static str> {
        const MALFORMED: &str = "Authorization malformed";
        let value = single(request, "authorization")
            .map_err(|count| match count {
                0 => "no Authorization",
                _ => "Authorization given twice",
            })
            .and_then(|value| std::str::from_utf8(value).map_err(|_| MALFORMED))?;
        let (algorithm, rest) = value.split_once(' ').ok_or(MALFORMED)?;
        if algorithm != ALGORITHM {
            return Err("other algorithm");
        }
        let mut parts = rest.split(", ");
        let mut part = |name: &str| {
            let part = parts.next()?.strip_prefix(name)?;
            (!part.is_empty()).then_some(part)
        };
        let (access_key, list, signature) = match (part("Access="), part("SignedHeaders="), part("Signature=")) {
            (Some(access_key), Some(list), Some(signature)) => (access_key, list, signature),
            _ => return Err(MALFORMED),
        };
        if parts.next().is_some() {
            return Err(MALFORMED);
        }
        Ok(Self { access_key, signed_headers: list.split(';').collect(), signature })
    }

    fn signs(&self, name: &str) -> bool {
        self.signed_headers.contains(&name)
    }
}

/// Verifies the signature of a request. The error is the reason of the rejection.
pub(crate) fn verify(
    request: &Request,
    claim: &Claim<'_>,
    account: &Account,
    now: SystemTime,
) -> Result<(), &'static str> {
    check_list(request, claim)?;
    let date = check_date(request, now)?;
    check_token(request, claim, account)?;
    check_tenant(request, claim, account)?;
    if request.query() != canonical_query(request.query()) {
        return Err("the query is not in its canonical form");
    }
    check_content_hash(request)?;
    let canonical = canonical_request(request, &claim.signed_headers);
    let expected = signature(&account.secret_key, &string_to_sign(&date, &canonical));
    if claim.signature != expected {
        return Err("the signature does not match");
    }
    Ok(())
}

fn check_list(request: &Request, claim: &Claim<'_>) -> Result<(), &'static str> {
    let names = &claim.signed_headers;
    if names.iter().any(|name| *name != name.to_ascii_lowercase()) {
        return Err("SignedHeaders is not in lower case");
    }
    if !names.is_sorted_by(|a, b| a < b) {
        return Err("SignedHeaders is not sorted, or names a header twice");
    }
    if names.iter().any(|name| name.contains('_')) {
        return Err("SignedHeaders names a header with an underscore");
    }
    for (name, reason) in [
        ("x-sdk-date", "x-sdk-date is not signed"),
        ("host", "host is not signed"),
        ("content-type", "content-type is not signed"),
    ] {
        if !claim.signs(name) {
            return Err(reason);
        }
    }
    for name in names {
        single(request, name).map_err(|count| match count {
            0 => "a signed header is absent",
            _ => "a signed header is given twice",
        })?;
    }
    Ok(())
}

fn check_date(request: &Request, now: SystemTime) -> Result<String, &'static str> {
    const MALFORMED: &str = "X-Sdk-Date malformed";
    let value = single(request, "x-sdk-date").map_err(|_| MALFORMED)?;
    let text = std::str::from_utf8(value).map_err(|_| MALFORMED)?;
    let date = parse_sdk_date(text).ok_or(MALFORMED)?;
    let skew = match now.duration_since(date) {
        Ok(behind) => behind,
        Err(ahead) => ahead.duration(),
    };
    if skew > MAX_SKEW {
        return Err("signature expired");
    }
    Ok(text.to_owned())
}

fn check_token(request: &Request, claim: &Claim<'_>, account: &Account) -> Result<(), &'static str> {
    let sent = request.values("x-security-token").next();
    match (&account.security_token, sent) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err("a security token with a permanent access key"),
        (Some(_), None) => Err("the security token is missing"),
        (Some(_), Some(_)) if !claim.signs("x-security-token") => Err("x-security-token is not signed"),
        (Some(token), Some(sent)) if token.as_bytes() != sent => Err("wrong security token"),
        (Some(_), Some(_)) => Ok(()),
    }
}

/// Checks the header that names the project or the account. The vendor accepts either, or neither. A project has to be
/// the path's, or, in a path without one, the account's.
fn check_tenant(request: &Request, claim: &Claim<'_>, account: &Account) -> Result<(), &'static str> {
    let sent = |name| request.values(name).next();
    let in_path = request.path().strip_prefix("/v2/").and_then(|rest| rest.split('/').next());
    match (sent("x-project-id"), sent("x-domain-id")) {
        (None, None) => Ok(()),
        (Some(_), Some(_)) => Err("x-project-id together with x-domain-id"),
        (Some(_), None) if !claim.signs("x-project-id") => Err("x-project-id is not signed"),
        (Some(project), None) => match in_path {
            Some(in_path) if in_path.as_bytes() != project => Err("x-project-id differs from the path's project"),
            None if account.projects.iter().all(|known| known.as_bytes() != project) => {
                Err("x-project-id is not of the account")
            }
            _ => Ok(()),
        },
        (None, Some(_)) if !claim.signs("x-domain-id") => Err("x-domain-id is not signed"),
        (None, Some(domain)) if domain != account.domain_id.as_bytes() => Err("x-domain-id is not the account's"),
        (None, Some(_)) => Ok(()),
    }
}

/// Rejects a content hash that differs from the body's hash. The vendor signs the header in place of the body's
/// hash, so a different value would turn body signing off.
fn check_content_hash(request: &Request) -> Result<(), &'static str> {
    let mut hashes = request.values(CONTENT_HASH);
    if hashes.any(|hash| hash != sha256_hex(&request.body).as_bytes()) {
        return Err("x-sdk-content-sha256 differs from the body's hash");
    }
    Ok(())
}

/// Returns the canonical request of six parts. Signed names without a header are skipped, so that a rejection can
/// echo the incomplete canonical request.
pub(crate) fn canonical_request(request: &Request, signed: &[&str]) -> Vec<u8> {
    let mut text = format!(
        "{}\n{}\n{}\n",
        request.method.to_ascii_uppercase(),
        canonical_uri(request.path()),
        canonical_query(request.query()),
    )
    .into_bytes();
    for name in signed {
        if let Some(value) = request.values(name).next() {
            text.extend_from_slice(format!("{name}:").as_bytes());
            text.extend_from_slice(value);
            text.push(b'\n');
        }
    }
    text.extend_from_slice(format!("\n{}\n", signed.join(";")).as_bytes());
    match request.values(CONTENT_HASH).next() {
        Some(hash) if signed.contains(&CONTENT_HASH) => text.extend_from_slice(hash),
        _ => text.extend_from_slice(sha256_hex(&request.body).as_bytes()),
    }
    text
}

pub(crate) fn string_to_sign(date: &str, canonical_request: &[u8]) -> String {
    format!("{ALGORITHM}\n{date}\n{}", sha256_hex(canonical_request))
}

pub(crate) fn signature(secret_key: &str, string_to_sign: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret_key.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(string_to_sign.as_bytes());
    hex(&mac.finalize().into_bytes())
}

fn canonical_uri(path: &str) -> String {
    let decoded = percent_decode(path);
    let segments: Vec<String> = decoded.split(|byte| *byte == b'/').map(encode).collect();
    let mut uri = segments.join("/");
    if !uri.ends_with('/') {
        uri.push('/');
    }
    uri
}

fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (percent_decode(key), percent_decode(value)))
        .collect();
    // The order of UTF-8 bytes is the order of code points.
    pairs.sort();
    let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
    pairs.join("&")
}

fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                text.push(char::from(*byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// Returns the value of a header that must occur once. The error is the number of occurrences.
fn single<'a>(request: &'a Request, name: &'a str) -> Result<&'a [u8], usize> {
    let values: Vec<&[u8]> = request.values(name).collect();
    match values[..] {
        [value] => Ok(value),
        _ => Err(values.len()),
    }
}

fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[path = "signature_tests.rs"]
mod tests;
