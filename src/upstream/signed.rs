//! A request with date and signature: good for one attempt, hence not `Clone`.

use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;

use super::target::Target;
use crate::{rest::UnsignedRequest, secret::Credentials, sign};

const X_PROJECT_ID: &str = "x-project-id";
const X_SECURITY_TOKEN: &str = "x-security-token";
const JSON: &str = "application/json";

/// What goes out. `Host` is set by the transport, from the same endpoint.
pub(super) struct SignedRequest {
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl SignedRequest {
    /// What of it names or signs, in lower case: an answer that repeats it tells nothing else.
    pub(super) fn ours(&self, key: &Credentials) -> Vec<String> {
        let authorization = self.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let signature = authorization.and_then(|value| value.rsplit('=').next());
        let token = key.security_token.as_ref().map(|token| token.expose_secret());
        [Some(key.access_key.as_str()), signature, token].into_iter().flatten().map(str::to_ascii_lowercase).collect()
    }
}

/// Signs a request as of `now`.
pub(super) fn sign(
    request: &UnsignedRequest,
    target: &Target,
    key: &Credentials,
    send_project_id: bool,
    now: SystemTime,
) -> SignedRequest {
    let date = date(now);
    let token = key.security_token.as_ref().map(|token| token.expose_secret());
    let mut headers: Vec<(&'static str, &str)> =
        vec![("content-type", JSON), ("host", target.endpoint.authority()), (sign::DATE_HEADER, &date)];
    headers.extend(send_project_id.then_some((X_PROJECT_ID, &*target.id)));
    headers.extend(token.map(|token| (X_SECURITY_TOKEN, token)));
    let parts = sign::Parts {
        method: request.method.as_str(),
        path: &request.path,
        query: &[],
        headers: &headers,
        body: &request.body,
    };
    let authorization = sign::sign(&parts, &date, &key.access_key, key.secret_key.expose_secret());

    let mut sent = HeaderMap::with_capacity(8);
    for (name, value) in headers.into_iter().filter(|(name, _)| *name != "host") {
        sent.insert(HeaderName::from_static(name), value_of(value, name == X_SECURITY_TOKEN));
    }
    sent.insert(header::AUTHORIZATION, value_of(&authorization, true));
    SignedRequest {
        method: request.method.clone(),
        url: format!("{}{}", target.endpoint, request.path),
        headers: sent,
        body: request.body.clone(),
    }
}

fn value_of(text: &str, sensitive: bool) -> HeaderValue {
    let mut value = HeaderValue::from_str(text).expect("the configuration takes visible ASCII only");
    value.set_sensitive(sensitive);
    value
}

/// `YYYYMMDDTHHMMSSZ`, UTC. A clock beyond all calendars shows the epoch, and the vendor refuses that date.
fn date(now: SystemTime) -> String {
    Timestamp::try_from(now).unwrap_or(Timestamp::UNIX_EPOCH).strftime("%Y%m%dT%H%M%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    #[test]
    fn the_date_has_the_vendors_form() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_660_017_906);
        assert_eq!(super::date(now), "20220809T040506Z");
    }
}
