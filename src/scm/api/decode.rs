//! Decodes responses of SCM into a reply or an error.

use std::{
    any::Any,
    fmt,
    marker::PhantomData,
    time::{Duration, SystemTime},
};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Unexpected, Visitor},
};

use super::{
    Decoded, Method, RawReply, RestMethod,
    error_body::{self, ErrorBody},
    error_codes,
};
use crate::{
    clock::seconds_between,
    error::{Answer, Error, Reason},
    proto::json::{self, Form, ReadJson},
};

/// HTTP statuses that say that the request was not processed, or that its outcome is unknown.
pub const AMBIGUOUS_STATUSES: [u16; 4] = [408, 502, 503, 504];

/// Decodes a response received at `now`.
///
/// A success has one of the method's success statuses and a JSON object of the right shape that is not an error body. If
/// the method allows it, the body may be empty.
pub fn decode<M: RestMethod>(raw: &RawReply, now: SystemTime) -> Result<Decoded, Error> {
    let text = std::str::from_utf8(&raw.body).ok();
    let error_body = match text.filter(|_| M::METHOD.success_statuses.contains(&raw.status)) {
        Some(text) if M::METHOD.empty_reply && text.trim_ascii().is_empty() => {
            return Ok(decoded((M::METHOD.empty)(), raw, &ErrorBody::default()));
        }
        Some(text) => match serde_json::from_str::<Response<M::Reply>>(text) {
            Ok(Response { reply, error }) if !error.is_error() && reply.is_acknowledged() => {
                return Ok(decoded(Box::new(reply), raw, &error));
            }
            Ok(Response { error, .. }) => Some(error),
            Err(_) => ErrorBody::read(text),
        },
        None => ErrorBody::of(&raw.body),
    };
    Err(error(raw, M::METHOD, error_body, now))
}

fn decoded(reply: Box<dyn Any + Send>, raw: &RawReply, error: &ErrorBody) -> Decoded {
    Decoded { reply, http_status: raw.status, attempts: 0, request_id: request_id(&raw.headers, Some(error)) }
}

/// Converts a response other than a success into an error. `now` is needed for `Retry-After` and clock skew.
fn error(raw: &RawReply, method: &Method, body: Option<ErrorBody>, now: SystemTime) -> Error {
    let request_id = request_id(&raw.headers, body.as_ref());
    let is_expired = raw.status == 401 && body.as_ref().is_some_and(ErrorBody::is_expired);
    let clock_skew = if is_expired { skew_seconds(&raw.headers, now) } else { None };
    let code = body.and_then(ErrorBody::into_code);
    let is_ambiguous = AMBIGUOUS_STATUSES.contains(&raw.status) && !error_codes::is_unprocessed(code.as_deref());
    let reason = if is_ambiguous && !method.idempotent {
        Some(Reason::UpstreamOutcomeUnknown)
    } else {
        error_codes::reason(raw.status, code.as_deref(), method.names_certificate)
    };
    let answer = Answer { http_status: raw.status, code, request_id, clock_skew };
    let error = Error::answered(reason.unwrap_or(Reason::UpstreamMalformed), answer);
    // A time to wait would invite to retry a call that may have been carried out.
    let is_settled = method.idempotent
        || !matches!(
            error.reason,
            Reason::UpstreamOutcomeUnknown
                | Reason::UpstreamError
                | Reason::UpstreamTimeout
                | Reason::UpstreamMalformed
        );
    let retry_after = retry_after(&raw.headers, now).filter(|_| is_settled);
    Error { retry_after, ..error }
}

/// Returns what is known of a response whose body was not read completely.
pub fn head(status: u16, headers: &http::HeaderMap) -> Answer {
    Answer { http_status: status, request_id: request_id(headers, None), ..Answer::default() }
}

/// Returns the vendor's code of an error body, if it has the format of a code.
pub fn error_code(body: &[u8]) -> Option<String> {
    ErrorBody::of(body).and_then(ErrorBody::into_code)
}

/// The JSON of a response with a success status: the reply, and the keys of an error body.
#[derive(Default)]
struct Response<M> {
    reply: M,
    error: ErrorBody,
}

impl<M: ReadJson> ReadJson for Response<M> {
    const FORM: Form = M::FORM;

    fn empty() -> Self {
        Self { reply: M::empty(), error: ErrorBody::default() }
    }

    fn read<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
        Ok(self.reply.read(key, map)? || self.error.read(key, map)?)
    }

    fn read_array<'de, A: SeqAccess<'de>>(&mut self, array: A) -> Result<(), A::Error> {
        self.reply.read_array(array)
    }

    fn is_acknowledged(&self) -> bool {
        self.reply.is_acknowledged()
    }

    fn finish(&mut self) {
        self.reply.finish();
    }
}

impl<'de, M: ReadJson> Deserialize<'de> for Response<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ResponseVisitor(PhantomData))
    }
}

/// Reads a response in the form of its reply.
struct ResponseVisitor<M>(PhantomData<M>);

impl<'de, M: ReadJson> Visitor<'de> for ResponseVisitor<M> {
    type Value = Response<M>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if M::FORM == Form::Object { "an object" } else { "an array" })
    }

    fn visit_unit<E: de::Error>(self) -> Result<Response<M>, E> {
        match M::FORM {
            Form::Object => Err(E::invalid_type(Unexpected::Unit, &self)),
            Form::Objects | Form::Values => Ok(Response::default()),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Response<M>, A::Error> {
        match M::FORM {
            Form::Values => Err(de::Error::invalid_type(Unexpected::Map, &self)),
            Form::Object | Form::Objects => json::object(map),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, array: A) -> Result<Response<M>, A::Error> {
        let mut response = Response::default();
        response.read_array(array)?;
        Ok(response)
    }
}

/// The headers with the vendor's id of the request.
static REQUEST_ID: [http::HeaderName; 2] =
    [http::HeaderName::from_static("x-request-id"), http::HeaderName::from_static("x-iam-trace-id")];

/// Returns the vendor's id of the request from the headers, otherwise from the body.
fn request_id(headers: &http::HeaderMap, body: Option<&ErrorBody>) -> Option<String> {
    REQUEST_ID
        .iter()
        .find_map(|name| headers.get(name)?.to_str().ok().filter(|id| error_body::is_request_id(id)).map(str::to_owned))
        .or_else(|| body.and_then(ErrorBody::request_id).cloned())
}

/// Returns the seconds by which the `Date` of a response is ahead of `now`.
pub fn skew_seconds(headers: &http::HeaderMap, now: SystemTime) -> Option<i64> {
    let date = httpdate::parse_http_date(headers.get(http::header::DATE)?.to_str().ok()?).ok()?;
    Some(seconds_between(now, date))
}

/// Returns `Retry-After`, given in seconds or as a date. Past and invalid values are ignored.
pub fn retry_after(headers: &http::HeaderMap, now: SystemTime) -> Option<Duration> {
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
