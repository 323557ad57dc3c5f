//! A request with date and signature. It is valid for one attempt, so it is not `Clone`.

use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use jiff::{Timestamp, fmt::temporal::DateTimePrinter};
use secrecy::ExposeSecret as _;

use crate::{
    config::{Endpoint, secret::Credentials},
    scm::api::UnsignedRequest,
};

const X_SECURITY_TOKEN: &str = "x-security-token";
const JSON: &str = "application/json";

/// The format of times: UTC with seconds. It has separators, which the vendor's format has not.
const TIME: DateTimePrinter = DateTimePrinter::new().precision(Some(0));

/// Shorter substrings match by coincidence and are not redacted.
pub(in crate::scm) const MIN_REDACTED_LEN: usize = 12;

/// A signed request.
pub(in crate::scm) struct SignedRequest {
    pub(in crate::scm) method: Method,
    pub(in crate::scm) path_and_query: String,
    pub(in crate::scm) headers: HeaderMap,
    pub(in crate::scm) body: Bytes,
}

/// The access key, signature and token in lower case, for redaction from anything that SCM echoes back.
pub(in crate::scm) struct KeyMaterial([Option<String>; 3]);

impl SignedRequest {
    /// Returns the parts of the request that come from the credentials.
    pub(in crate::scm) fn key_material(&self, credentials: &Credentials) -> KeyMaterial {
        let authorization = self.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let signature = authorization.and_then(|value| value.get(value.len() - super::SIGNATURE_LEN..));
        let token = credentials.security_token.as_ref().map(|token| token.expose_secret());
        KeyMaterial(
            [Some(credentials.access_key.as_str()), signature, token].map(|part| part.map(str::to_ascii_lowercase)),
        )
    }
}

impl KeyMaterial {
    /// Returns whether `text` contains, or is contained in, a part of the key material.
    pub(in crate::scm) fn overlaps(&self, text: &str) -> bool {
        let text = text.to_ascii_lowercase();
        let contains = |whole: &str, part: &str| part.len() >= MIN_REDACTED_LEN && whole.contains(part);
        self.0.iter().flatten().any(|part| contains(&text, part) || contains(part, &text))
    }
}

/// Signs a request as of `now`. `scope` is the header that says whose project or domain the call is for, if one is sent.
pub(in crate::scm) fn sign(
    request: &UnsignedRequest,
    endpoint: &Endpoint,
    scope: Option<(&'static str, &str)>,
    credentials: &Credentials,
    now: SystemTime,
) -> SignedRequest {
    let date = date(now);
    let token = credentials.security_token.as_ref().map(|token| token.expose_secret());
    let mut headers: Vec<(&'static str, &str)> =
        vec![("content-type", JSON), ("host", endpoint.authority()), (super::DATE_HEADER, &date)];
    headers.extend(scope);
    headers.extend(token.map(|token| (X_SECURITY_TOKEN, token)));
    let parts = super::Parts {
        method: request.method.http.as_str(),
        path: &request.path,
        query: &request.query,
        headers: &headers,
        body: &request.body,
    };
    let secret_key = credentials.secret_key.expose_secret();
    let authorization = super::sign(&parts, &date, &credentials.access_key, secret_key);

    let mut sent = HeaderMap::with_capacity(8);
    for (name, value) in headers {
        let value = if name == X_SECURITY_TOKEN { sensitive(value) } else { plain(value) };
        sent.insert(HeaderName::from_static(name), value);
    }
    sent.insert(header::AUTHORIZATION, sensitive(&authorization));
    SignedRequest {
        method: request.method.http.clone(),
        path_and_query: path_and_query(request),
        headers: sent,
        body: request.body.clone(),
    }
}

fn path_and_query(request: &UnsignedRequest) -> String {
    let UnsignedRequest { path, query, .. } = request;
    if query.is_empty() { path.clone() } else { [path, "?", query].concat() }
}

fn plain(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("the configuration accepts only visible ASCII")
}

fn sensitive(text: &str) -> HeaderValue {
    let mut value = plain(text);
    value.set_sensitive(true);
    value
}

/// Returns `YYYYMMDDTHHMMSSZ` in UTC. A time outside the calendar becomes the epoch, whose signature SCM rejects.
fn date(now: SystemTime) -> String {
    let mut date = TIME.timestamp_to_string(&Timestamp::try_from(now).unwrap_or(Timestamp::UNIX_EPOCH));
    date.retain(|c| !matches!(c, '-' | ':'));
    date
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    #[test]
    fn the_date_has_the_vendors_format() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_660_017_906);
        assert_eq!(super::date(now), "20220809T040506Z");
    }
}
