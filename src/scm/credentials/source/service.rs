//! A service that issues temporary credentials by HTTP: what the requests and responses of all of them have in common.

use std::{borrow::Cow, sync::Arc};

use http::{HeaderMap, HeaderValue, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{Failure, FailureKind, TemporaryCredentials, expiration};
use crate::{
    clock::Clock,
    config::secret::{Credentials, printable},
    scm::{
        api::decode,
        client::{
            clock_skew,
            transport::{ExchangeReply, ExchangeRequest, Transport},
        },
        sign::signed_request::MIN_REDACTED_LEN,
    },
};

/// A service that issues credentials.
pub(super) struct Service {
    /// The name in messages.
    name: &'static str,
    transport: Arc<Transport>,
    clock: Clock,
}

/// The fields of issued credentials, which each service names differently.
pub(crate) struct Fields<'a> {
    pub(super) access_key: Cow<'a, str>,
    pub(super) secret_key: Cow<'a, str>,
    pub(super) security_token: Cow<'a, str>,
    pub(super) expiration: Cow<'a, str>,
}

impl Service {
    pub(super) fn new(name: &'static str, transport: Arc<Transport>, clock: Clock) -> Self {
        Self { name, transport, clock }
    }

    /// Sends a request and reads the response until the deadline.
    pub(super) async fn send(&self, request: ExchangeRequest, deadline: Instant) -> Result<ExchangeReply, Failure> {
        let reply = self.transport.exchange(request, deadline).await;
        reply.map_err(|error| Failure::failed(format!("{} does not respond: {}", self.name, error.cause)))
    }

    /// Returns the credentials in a response to a request with this token. `W` is the response of the service.
    pub(super) fn credentials<'a, W: Deserialize<'a> + Into<Fields<'a>>>(
        &self,
        reply: &'a ExchangeReply,
        token: Option<&SecretString>,
        hint: impl FnOnce(StatusCode, &str) -> &'static str,
    ) -> Result<TemporaryCredentials, Failure> {
        if reply.status != StatusCode::OK {
            return Err(self.failure(reply, token, hint));
        }
        let issued = parse::<W>(self.name, &reply.body).map_err(Failure::failed)?;
        // An expiration by a clock that differs would end the credentials too early, or use them for too long.
        let expires_at = clock_skew::local_time(issued.expires_at, &reply.headers, self.clock.now());
        Ok(TemporaryCredentials { expires_at, ..issued })
    }

    /// Returns the failure that a response other than 200 means. Its message is dropped, because it may echo the token.
    pub(super) fn failure(
        &self,
        reply: &ExchangeReply,
        token: Option<&SecretString>,
        hint: impl FnOnce(StatusCode, &str) -> &'static str,
    ) -> Failure {
        let status = reply.status;
        let is_useful =
            |code: &String| code != status.as_str() && !token.is_some_and(|token| repeats(code, token.expose_secret()));
        let code = decode::error_code(&reply.body).filter(is_useful).unwrap_or_default();
        let hint = if status.is_redirection() { "redirects are not followed" } else { hint(status, &code) };
        let mut problem = format!("{} responded {}", self.name, status.as_str());
        if !code.is_empty() {
            problem += &format!(" ({code})");
        }
        if !hint.is_empty() {
            problem += &format!(": {hint}");
        }
        Failure { kind: self.kind(status, &reply.headers), problem }
    }

    fn kind(&self, status: StatusCode, headers: &HeaderMap) -> FailureKind {
        match status {
            StatusCode::TOO_MANY_REQUESTS => {
                FailureKind::Failed { retry_after: decode::retry_after(headers, self.clock.now()) }
            }
            status if status.is_client_error() => FailureKind::Rejected,
            _ => FailureKind::Failed { retry_after: None },
        }
    }
}

/// Returns whether a text repeats [`MIN_REDACTED_LEN`] characters in a row of a secret, or all of a shorter one, in any case.
fn repeats(text: &str, secret: &str) -> bool {
    let [text, secret] = [text, secret].map(|text| Zeroizing::new(text.to_ascii_lowercase().into_bytes()));
    let mut parts = text.windows(MIN_REDACTED_LEN);
    parts.any(|part| secret.windows(MIN_REDACTED_LEN).any(|other| part == other)) || text == secret
}

/// Returns a token as the value of a header, as it is.
pub(super) fn sensitive_header(token: &SecretString) -> Result<HeaderValue, Failure> {
    let value = HeaderValue::from_str(token.expose_secret());
    let mut value = value.map_err(|_| Failure::failed("the token is not printable"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Parses the credentials in a response of this service. All fields are required.
pub(crate) fn parse<'a, W: Deserialize<'a> + Into<Fields<'a>>>(
    service: &str,
    body: &'a [u8],
) -> Result<TemporaryCredentials, String> {
    // serde's message may quote the response.
    let response: W =
        serde_json::from_slice(body).map_err(|_| format!("the response of {service} has no credentials"))?;
    let Fields { access_key, secret_key, security_token, expiration } = response.into();
    let part = |name: &str, text: &str| {
        printable(text.as_bytes()).map_err(|message| format!("the {name} in the response of {service} {message}"))
    };
    let credentials = Credentials {
        access_key: part("access key", &access_key)?.expose_secret().to_owned(),
        secret_key: part("secret key", &secret_key)?,
        security_token: Some(part("security token", &security_token)?),
    };
    let expires_at = expiration::parse(&expiration)
        .ok_or_else(|| format!("the expiration in the response of {service} is not a time of RFC 3339"))?;
    Ok(TemporaryCredentials { credentials, expires_at })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_text_repeats_a_secret_if_it_has_twelve_characters_of_it() {
        for (text, secret, expected) in [
            ("SCM.0001", "AKIDEXAMPLE12345", false),
            ("AKIDEXAMPLE12345", "AKIDEXAMPLE12345", true),
            ("x.akidexample1.y", "AKIDEXAMPLE12345", true),
            ("DEXAMPLE12345", "AKIDEXAMPLE12345", true),
            ("DEXAMPLE123", "AKIDEXAMPLE12345", false),
            ("a AKIDEXAMPLE12345 b", "AKIDEXAMPLE12345", true),
            ("short", "SHORT", true),
            ("short.", "SHORT", false),
        ] {
            assert_eq!(super::repeats(text, secret), expected, "{text}");
        }
    }
}
