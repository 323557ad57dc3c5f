//! A client of an ECS's metadata service: it fetches a token, and with the token temporary credentials. Version 1 of the
//! service has no tokens.
//!
//! See "Obtaining Metadata" in the ECS user guide, and `MetadataAccessor` of huaweicloud-sdk-java-v3 for the token.

use std::{borrow::Cow, time::SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::{
    config::{
        Endpoint,
        secret::{Credentials, printable},
    },
    scm::client::transport::MetadataTransport,
};

const TOKEN_PATH: &str = "/meta-data/latest/api/token";
const KEY_PATH: &str = "/openstack/latest/securitykey";
const TOKEN: HeaderName = HeaderName::from_static("x-metadata-token");
const TOKEN_TTL: HeaderName = HeaderName::from_static("x-metadata-token-ttl-seconds");

/// A token is used for one request.
const TTL: HeaderValue = HeaderValue::from_static("60");

/// Credentials with an expiry.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TemporaryCredentials {
    pub(super) credentials: Credentials,
    pub(super) expires_at: SystemTime,
}

/// Why there are no credentials, for the log. It holds nothing of a response except its status.
pub(super) type FetchError = String;

/// The client.
pub(super) struct MetadataService {
    transport: MetadataTransport,
    endpoint: Endpoint,
}

impl MetadataService {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self { transport: MetadataTransport::new(), endpoint }
    }

    /// Fetches the current credentials.
    pub(super) async fn fetch(&self) -> Result<TemporaryCredentials, FetchError> {
        let token = self.token().await?.map(|token| (TOKEN, token));
        let (status, body) = self.send(Method::GET, KEY_PATH, token).await?;
        match status {
            200 => parse(&body),
            _ => Err(format!(
                "the metadata service responded {status} to a request for credentials: check that the ECS has an agency"
            )),
        }
    }

    /// Fetches a token. Returns `None` if the service has no tokens.
    async fn token(&self) -> Result<Option<HeaderValue>, FetchError> {
        match self.send(Method::PUT, TOKEN_PATH, Some((TOKEN_TTL, TTL))).await? {
            (200, body) => token(&body).map(Some),
            (404 | 405, _) => Ok(None),
            (status, _) => Err(format!("the metadata service responded {status} to a request for a token")),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        header: Option<(HeaderName, HeaderValue)>,
    ) -> Result<(u16, Zeroizing<Vec<u8>>), FetchError> {
        let url = format!("{}{path}", self.endpoint);
        let sent = self.transport.send(method, url, HeaderMap::from_iter(header)).await;
        sent.map_err(|error| format!("the metadata service does not respond: {}", error.cause))
    }
}

pub(super) fn token(body: &[u8]) -> Result<HeaderValue, FetchError> {
    let token = printable(body).map_err(|message| format!("the metadata service's token {message}"))?;
    let mut value = HeaderValue::from_str(token.expose_secret()).map_err(|_| "the token is invalid".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

#[derive(Deserialize)]
struct ResponseWire<'a> {
    #[serde(borrow)]
    credential: Credential<'a>,
}

#[derive(Deserialize)]
struct Credential<'a> {
    #[serde(borrow)]
    access: Cow<'a, str>,
    #[serde(borrow)]
    secret: Cow<'a, str>,
    #[serde(borrow)]
    securitytoken: Cow<'a, str>,
    #[serde(borrow)]
    expires_at: Cow<'a, str>,
}

pub(super) fn parse(body: &[u8]) -> Result<TemporaryCredentials, FetchError> {
    // serde's message may quote the response.
    let ResponseWire { credential } =
        serde_json::from_slice(body).map_err(|_| "the metadata service's response has no credentials".to_owned())?;
    let part = |name: &str, text: &str| {
        printable(text.as_bytes())
            .map_err(|message| format!("`{name}` of the metadata service's credentials {message}"))
    };
    let access_key = part("access", &credential.access)?.expose_secret().to_owned();
    let secret_key = part("secret", &credential.secret)?;
    let security_token = Some(part("securitytoken", &credential.securitytoken)?);
    let expires_at = credential.expires_at.parse::<Timestamp>().and_then(SystemTime::try_from);
    let expires_at =
        expires_at.map_err(|_| "`expires_at` of the metadata service's credentials is not a time".to_owned())?;
    let credentials = Credentials { access_key, secret_key, security_token };
    Ok(TemporaryCredentials { credentials, expires_at })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MARKER: &str = "s3cr3t";

    #[test]
    fn credentials_are_parsed_with_their_expiry() {
        let body = br#"{"credential": {"access": "AK", "expires_at": "2022-08-09T04:05:06.500000Z", "secret": "S\/K",
            "securitytoken": "ST", "more": [1]}, "more": null}"#;
        let key = parse(body).unwrap();
        assert_eq!(key.credentials.access_key, "AK");
        assert_eq!(key.credentials.secret_key.expose_secret(), "S/K");
        assert_eq!(key.credentials.security_token.as_ref().unwrap().expose_secret(), "ST");
        assert_eq!(key.expires_at, SystemTime::UNIX_EPOCH + Duration::from_millis(1_660_017_906_500));
        assert!(!format!("{key:?}").contains("AK"));
    }

    #[test]
    fn anything_else_is_rejected_without_its_text() {
        let ends = "2022-08-09T04:05:06Z";
        let none = "the metadata service's response has no credentials";
        let key = |access: &str, secret: &str, token: &str, expires_at: &str| {
            format!(
                r#"{{"credential":{{"access":{access},"secret":{secret},"securitytoken":{token},"expires_at":{expires_at}}}}}"#
            )
        };
        let ends = format!("\"{ends}\"");
        let good = format!("\"{MARKER}\"");
        let printable_only = "of the metadata service's credentials must hold printable ASCII only, without whitespace";
        let table = [
            (String::new(), none.to_owned()),
            (MARKER.to_owned(), none.to_owned()),
            (format!("\"{MARKER}\""), none.to_owned()),
            (format!(r#"{{"credential":"{MARKER}"}}"#), none.to_owned()),
            (format!(r#"{{"credential":{{"access":"{MARKER}"}}}}"#), none.to_owned()),
            (key(&good, &good, "null", &ends), none.to_owned()),
            (key(&good, &good, &good, "17"), none.to_owned()),
            (format!("{} {MARKER}", key(&good, &good, &good, &ends)), none.to_owned()),
            (key("\"\"", &good, &good, &ends), "`access` of the metadata service's credentials is empty".to_owned()),
            (key(&good, r#""s3cr3t s3cr3t""#, &good, &ends), format!("`secret` {printable_only}")),
            (
                key(&good, &good, r#""s3cr3t\r\nx: y""#, &ends),
                format!("`securitytoken` {printable_only}; it has a carriage return"),
            ),
            (
                key(&good, &good, &good, &good),
                "`expires_at` of the metadata service's credentials is not a time".to_owned(),
            ),
            (key(&good, &good, &good, "\"2022-08-09T04:05:06\""), {
                "`expires_at` of the metadata service's credentials is not a time".to_owned()
            }),
        ];
        for (body, message) in table {
            assert_eq!(parse(body.as_bytes()), Err(message), "{body}");
        }
    }

    #[test]
    fn a_token_is_one_word_and_is_redacted() {
        let good = token(b"s3cr3t==\n").unwrap();
        assert_eq!(good, "s3cr3t==");
        assert!(!format!("{good:?}").contains(MARKER));
        for bad in ["", "\n", "s3cr3t s3cr3t", "<html>\n<body>s3cr3t"] {
            assert!(!token(bad.as_bytes()).unwrap_err().contains(MARKER), "{bad:?}");
        }
    }
}
