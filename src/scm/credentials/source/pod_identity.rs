//! Pod identity of CCE: an agent exchanges the token that CCE mounts into the pod for credentials.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use serde::Deserialize;

use super::{
    Failure, Source, TemporaryCredentials,
    service::{Fields, Service, sensitive_header},
    token::Token,
};
use crate::{clock, config, scm::client::transport::ExchangeRequest};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The timeout of an exchange.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct PodIdentityAgent {
    config: config::PodIdentity,
    token: Token,
    service: Service,
}

impl PodIdentityAgent {
    pub(super) fn new(config: config::PodIdentity, service: Service) -> Self {
        Self { token: Token::new(config.authorization_token_file.clone()), config, service }
    }

    async fn exchange(&self) -> Result<TemporaryCredentials, Failure> {
        let deadline = clock::monotonic() + TIMEOUT;
        let token = self.token.read(deadline).await?;
        let request = ExchangeRequest {
            method: Method::POST,
            endpoint: self.config.endpoint.clone(),
            path: self.config.path.clone(),
            headers: HeaderMap::from_iter([(AUTHORIZATION, sensitive_header(&token)?), (CONTENT_TYPE, JSON)]),
            body: Bytes::from_static(b"{}"),
            via_proxy: false, // the agent is on the node or in the cluster
        };
        let reply = self.service.send(request, deadline).await?;
        self.service.credentials::<Response<'_>>(&reply, Some(&token), hint)
    }
}

impl Source for PodIdentityAgent {
    type Credentials = TemporaryCredentials;

    fn get(&self) -> BoxFuture<'_, Result<TemporaryCredentials, Failure>> {
        Box::pin(self.exchange())
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.token.changed())
    }
}

#[derive(Deserialize)]
pub(crate) struct Response<'a> {
    #[serde(borrow)]
    credentials: Wire<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    #[serde(borrow)]
    access_key_id: Cow<'a, str>,
    #[serde(borrow)]
    secret_access_key: Cow<'a, str>,
    #[serde(borrow)]
    security_token: Cow<'a, str>,
    #[serde(borrow)]
    expiration: Cow<'a, str>,
}

impl<'a> From<Response<'a>> for Fields<'a> {
    fn from(Response { credentials }: Response<'a>) -> Self {
        Self {
            access_key: credentials.access_key_id,
            secret_key: credentials.secret_access_key,
            security_token: credentials.security_token,
            expiration: credentials.expiration,
        }
    }
}

/// Says what to check after a rejection.
fn hint(status: StatusCode, _: &str) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "check the token with `scm-gateway --check`: it may have expired",
        StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
            "check that a pod identity association names the namespace and service account of the pod"
        }
        _ => "",
    }
}
