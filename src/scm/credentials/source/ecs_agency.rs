//! The agency of the ECS that the gateway runs on: the metadata service returns a token, and with the token credentials.
//! Version 1 of the service has no tokens.
//!
//! See "Obtaining Metadata" in the ECS user guide, and `MetadataAccessor` of huaweicloud-sdk-java-v3 for the token.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use secrecy::SecretString;
use serde::Deserialize;
use tokio::time::Instant;

use super::{
    Failure, Source, TemporaryCredentials,
    service::{Fields, Service, sensitive_header},
};
use crate::{
    clock,
    config::{Endpoint, secret::printable},
    scm::client::transport::{ExchangeReply, ExchangeRequest},
};

const TOKEN_PATH: &str = "/meta-data/latest/api/token";
const KEY_PATH: &str = "/openstack/latest/securitykey";
const TOKEN: HeaderName = HeaderName::from_static("x-metadata-token");
const TOKEN_TTL: HeaderName = HeaderName::from_static("x-metadata-token-ttl-seconds");

/// A token is used for one request.
const TTL: HeaderValue = HeaderValue::from_static("60");

/// The timeout of an exchange with all its requests.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What the body of a 401 says if the ECS has no agency. Otherwise the token is no longer valid.
const NO_AGENCY: &[u8] = b"Please configure Cloud Service Agency first";

pub(super) struct MetadataService {
    endpoint: Endpoint,
    service: Service,
}

impl MetadataService {
    pub(super) fn new(endpoint: Endpoint, service: Service) -> Self {
        Self { endpoint, service }
    }

    async fn exchange(&self) -> Result<TemporaryCredentials, Failure> {
        let deadline = clock::monotonic() + TIMEOUT;
        let mut token = self.token(deadline).await?;
        let mut reply = self.key(token.as_ref(), deadline).await?;
        if token.is_some() && reply.status == StatusCode::UNAUTHORIZED && !has_no_agency(&reply) {
            token = self.token(deadline).await?;
            reply = self.key(token.as_ref(), deadline).await?;
        }
        self.service.credentials::<Response<'_>>(&reply, token.as_ref(), hint)
    }

    /// Gets a token. Returns `None` if the service has no tokens.
    async fn token(&self, deadline: Instant) -> Result<Option<SecretString>, Failure> {
        let reply = self.send(Method::PUT, TOKEN_PATH, Some((TOKEN_TTL, TTL)), deadline).await?;
        match reply.status {
            StatusCode::OK => token(&reply.body).map(Some).map_err(Failure::failed),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::SERVICE_UNAVAILABLE => Ok(None),
            _ => Err(self.service.failure(&reply, None, |_, _| "no token was issued")),
        }
    }

    async fn key(&self, token: Option<&SecretString>, deadline: Instant) -> Result<ExchangeReply, Failure> {
        let header = token.map(|token| Ok((TOKEN, sensitive_header(token)?))).transpose()?;
        self.send(Method::GET, KEY_PATH, header, deadline).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        header: Option<(HeaderName, HeaderValue)>,
        deadline: Instant,
    ) -> Result<ExchangeReply, Failure> {
        let headers = HeaderMap::from_iter(header);
        let request = ExchangeRequest {
            method,
            endpoint: self.endpoint.clone(),
            path: path.to_owned(),
            headers,
            body: Bytes::new(),
            via_proxy: false,
        };
        self.service.send(request, deadline).await
    }
}

impl Source for MetadataService {
    type Credentials = TemporaryCredentials;

    fn get(&self) -> BoxFuture<'_, Result<TemporaryCredentials, Failure>> {
        Box::pin(self.exchange())
    }
}

/// Says what to check after a rejection.
fn hint(status: StatusCode, _: &str) -> &'static str {
    if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
        "check that the ECS has an agency"
    } else {
        ""
    }
}

fn has_no_agency(reply: &ExchangeReply) -> bool {
    reply.body.windows(NO_AGENCY.len()).any(|window| window == NO_AGENCY)
}

/// Parses a token.
pub(crate) fn token(body: &[u8]) -> Result<SecretString, String> {
    printable(body).map_err(|message| format!("the token of the metadata service {message}"))
}

#[derive(Deserialize)]
pub(crate) struct Response<'a> {
    #[serde(borrow)]
    credential: Wire<'a>,
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    access: Cow<'a, str>,
    #[serde(borrow)]
    secret: Cow<'a, str>,
    #[serde(borrow)]
    securitytoken: Cow<'a, str>,
    #[serde(borrow)]
    expires_at: Cow<'a, str>,
}

impl<'a> From<Response<'a>> for Fields<'a> {
    fn from(Response { credential }: Response<'a>) -> Self {
        Self {
            access_key: credential.access,
            secret_key: credential.secret,
            security_token: credential.securitytoken,
            expiration: credential.expires_at,
        }
    }
}
