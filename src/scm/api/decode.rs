//! Decodes responses of SCM into a reply or an error.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, de::DeserializeOwned};

use super::{Decoded, RawReply, RestMethod, error_codes};
use crate::{
    clock::seconds_between,
    error::{Answer, Error, Reason},
};

/// Decodes a response received at `now`.
///
/// A success is exactly 200 with a JSON object of the right shape that is not an error body.
pub fn decode<M: RestMethod>(raw: &RawReply, now: SystemTime) -> Result<Decoded, Error> {
    let text = std::str::from_utf8(&raw.body).ok();
    let error_body = match text {
        Some(text) => ErrorBody::read(text),
        None => ErrorBody::read_other_encoding(&raw.body),
    };
    let request_id = request_id(&raw.headers, error_body.as_ref());
    if raw.status != 200 || error_body.is_some() {
        return Err(error(raw, error_body, request_id, now));
    }
    match text.and_then(object::<M::Wire>).map(Into::into).filter(M::acknowledged) {
        Some(reply) => Ok(Decoded { reply: Box::new(reply), request_id }),
        None => {
            let answer = Answer { http_status: raw.status, request_id, ..Answer::default() };
            Err(Error::answered(Reason::UpstreamMalformed, answer))
        }
    }
}

/// Converts a response other than a success into an error. `now` is needed for `Retry-After` and clock skew.
fn error(raw: &RawReply, body: Option<ErrorBody>, request_id: Option<String>, now: SystemTime) -> Error {
    let is_expired = raw.status == 401 && body.as_ref().is_some_and(|body| body.expired);
    let clock_skew = if is_expired { skew_seconds(&raw.headers, now) } else { None };
    let code = body.and_then(|body| body.code);
    let reason = error_codes::reason(raw.status, code.as_deref()).unwrap_or(Reason::UpstreamMalformed);
    let answer = Answer { http_status: raw.status, code, request_id, clock_skew };
    Error { retry_after: retry_after(&raw.headers, now), ..Error::answered(reason, answer) }
}

/// Returns what is known of a response whose body was not read completely.
pub fn head(status: u16, headers: &http::HeaderMap) -> Answer {
    Answer { http_status: status, request_id: request_id(headers, None), ..Answer::default() }
}

/// Deserializes a JSON object. Rejects arrays, which serde would accept as the values of the fields.
fn object<T: DeserializeOwned>(text: &str) -> Option<T> {
    text.trim_ascii_start().starts_with('{').then(|| serde_json::from_str(text).ok())?
}

/// An error body of SCM, the API gateway, IAM or another service of the vendor.
#[derive(Debug, Default, PartialEq, Eq)]
struct ErrorBody {
    code: Option<String>,
    request_id: Option<String>,
    expired: bool,
}

/// The wire formats of an error body. A message is searched for one phrase and dropped, because it may echo credentials
/// and personal data.
#[derive(Deserialize)]
struct ErrorBodyWire {
    #[serde(alias = "errorCode")]
    error_code: Option<Code>,
    #[serde(alias = "errorMsg")]
    error_msg: Option<Code>,
    error: Option<Nested>,
    code: Option<Code>,
    request_id: Option<Code>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Nested {
    Object { code: Option<Code> },
    Other(serde::de::IgnoredAny),
}

/// A code or id. IAM sends numbers.
#[derive(Deserialize)]
#[serde(untagged)]
enum Code {
    Text(String),
    Number(u64),
    Other(serde::de::IgnoredAny),
}

impl ErrorBody {
    /// Returns the error body of a response that is not UTF-8. Only the message can be in another encoding, and the message
    /// does not matter.
    fn read_other_encoding(body: &[u8]) -> Option<Self> {
        let texts = [without_double_bytes(body), String::from_utf8_lossy(body).into_owned()];
        // `max_by_key` returns the last one if both have a code, or neither.
        texts.iter().filter_map(|text| Self::read(text)).max_by_key(|body| body.code.is_some())
    }

    /// Returns `None` if the text is not an error body. Invalid JSON, such as a duplicate key, counts as an error body
    /// without a code, because it must not count as a success.
    fn read(text: &str) -> Option<Self> {
        if !text.trim_start().starts_with('{') {
            return None; // serde also accepts an array of the values
        }
        let Some(body) = object::<ErrorBodyWire>(text) else { return Some(Self::default()) };
        let has_error_key =
            body.error_code.is_some() || body.error_msg.is_some() || body.error.is_some() || body.code.is_some();
        let nested = body.error.and_then(|error| match error {
            Nested::Object { code } => code,
            Nested::Other(_) => None,
        });
        has_error_key.then(|| Self {
            code: [body.error_code, nested, body.code].into_iter().flatten().find_map(Code::into_upstream_code),
            request_id: body.request_id.and_then(Code::into_request_id),
            expired: body.error_msg.and_then(Code::text).is_some_and(|message| says_expired(&message)),
        })
    }
}

/// Replaces every character of two bytes, as in GBK and Big5, and other bytes above 127. The second byte can be a backslash,
/// which would end the JSON string at another place.
fn without_double_bytes(body: &[u8]) -> String {
    let mut text = String::with_capacity(body.len());
    let mut bytes = body.iter().peekable();
    while let Some(byte) = bytes.next() {
        if byte.is_ascii() {
            text.push(char::from(*byte));
        } else {
            text.push(char::REPLACEMENT_CHARACTER);
            bytes.next_if(|second| **second >= 0x40);
        }
    }
    text
}

impl Code {
    fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(number) => Some(number.to_string()),
            Self::Other(_) => None,
        }
    }

    /// Returns the text if it has the format of a code, because other text may be data.
    fn into_upstream_code(self) -> Option<String> {
        self.text().filter(|code| (3..=36).contains(&code.len()) && is_token(code))
    }

    fn into_request_id(self) -> Option<String> {
        self.text().filter(|id| is_request_id(id))
    }
}

/// Returns whether a message reports a date that is more than 15 minutes off. The echo of the request follows the
/// phrase.
fn says_expired(message: &str) -> bool {
    message.to_ascii_lowercase().contains("signature expired")
}

fn is_token(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn is_request_id(text: &str) -> bool {
    (1..=128).contains(&text.len()) && is_token(text)
}

/// The headers with the vendor's id of the request.
static REQUEST_ID: [http::HeaderName; 2] =
    [http::HeaderName::from_static("x-request-id"), http::HeaderName::from_static("x-iam-trace-id")];

/// Returns the vendor's id of the request from the headers, otherwise from the body.
fn request_id(headers: &http::HeaderMap, body: Option<&ErrorBody>) -> Option<String> {
    REQUEST_ID
        .iter()
        .find_map(|name| headers.get(name)?.to_str().ok().filter(|id| is_request_id(id)).map(str::to_owned))
        .or_else(|| body.and_then(|body| body.request_id.clone()))
}

/// Returns the seconds by which the `Date` of a response is ahead of `now`.
pub fn skew_seconds(headers: &http::HeaderMap, now: SystemTime) -> Option<i64> {
    let date = httpdate::parse_http_date(headers.get(http::header::DATE)?.to_str().ok()?).ok()?;
    Some(seconds_between(now, date))
}

/// Returns `Retry-After`, given in seconds or as a date. Past and invalid values are ignored.
fn retry_after(headers: &http::HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        Duration::from_secs(value.parse().unwrap_or(u64::MAX)) // parsing fails only on overflow
    } else {
        httpdate::parse_http_date(value).ok()?.duration_since(now).ok()?
    };
    (!wait.is_zero()).then_some(wait)
}

#[cfg(test)]
mod tests;
