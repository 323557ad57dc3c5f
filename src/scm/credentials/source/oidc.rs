//! OIDC federation: STS exchanges a token, such as a projected service account token of Kubernetes, for credentials.
//!
//! See `AssumeAgencyWithOIDC` in the API reference of STS. The request is not signed.

use std::{borrow::Cow, io::Write, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{
    Failure, Source, TemporaryCredentials,
    service::{Fields, Service},
    token::Token,
};
use crate::{
    clock, config,
    json::{Object, WriteJson},
    scm::{api::secret_json_body, client::transport::ExchangeRequest},
};

const PATH: &str = "/v5/agencies/assume-with-oidc";
const JSON: HeaderValue = HeaderValue::from_static("application/json;charset=UTF-8");

/// The timeout of an exchange.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct OidcFederation {
    config: config::Oidc,
    token: Token,
    service: Service,
}

impl OidcFederation {
    pub(super) fn new(config: config::Oidc, service: Service) -> Self {
        Self { token: Token::new(config.token_file.clone()), config, service }
    }

    async fn exchange(&self) -> Result<TemporaryCredentials, Failure> {
        let deadline = clock::monotonic() + TIMEOUT;
        let token = self.token.read(deadline).await?;
        let request = ExchangeRequest {
            method: Method::POST,
            endpoint: self.config.sts_endpoint.clone(),
            path: PATH.to_owned(),
            headers: HeaderMap::from_iter([(CONTENT_TYPE, JSON)]),
            body: body(&self.config, &token),
            via_proxy: true,
        };
        let reply = self.service.send(request, deadline).await?;
        self.service.credentials::<Response<'_>>(&reply, Some(&token), hint)
    }
}

impl Source for OidcFederation {
    type Credentials = TemporaryCredentials;

    fn get(&self) -> BoxFuture<'_, Result<TemporaryCredentials, Failure>> {
        Box::pin(self.exchange())
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.token.changed())
    }
}

struct RequestBody<'a> {
    config: &'a config::Oidc,
    token: &'a SecretString,
}

impl WriteJson for RequestBody<'_> {
    fn write_json(&self, json: &mut impl Write) {
        let Self { config, token } = self;
        let mut object = Object::new(json);
        object.member("provider_urn", &config.provider_urn);
        object.member("agency_urn", &config.agency_urn);
        object.member("agency_session_name", &config.session_name);
        object.member("id_token", token.expose_secret());
        object.member("duration_seconds", &config.duration.as_secs());
        if let Some(policy) = &config.policy {
            object.member("policy", policy);
        }
        if !config.policy_ids.is_empty() {
            object.member("policy_ids", &config.policy_ids);
        }
        object.end();
    }
}

fn body(config: &config::Oidc, token: &SecretString) -> Bytes {
    Bytes::from_owner(Zeroizing::new(secret_json_body(&RequestBody { config, token })))
}

#[derive(Deserialize)]
pub(crate) struct Response<'a> {
    #[serde(borrow)]
    credentials: Wire<'a>,
}

#[derive(Deserialize)]
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
fn hint(status: StatusCode, code: &str) -> &'static str {
    match (status, code) {
        (_, "STS5.1001") => {
            "the trust policy of the agency does not allow the token: compare its oidc:iss, oidc:aud and oidc:sub with \
             iss, aud and sub in the output of `scm-gateway --check`"
        }
        (_, "STS5.2001") => {
            "aud of the token, which `scm-gateway --check` shows, is not a client id of the OIDC provider in IAM"
        }
        (StatusCode::BAD_REQUEST, _) => {
            "the token may have expired, or `duration` may exceed the limit of the agency: `scm-gateway --check` shows both"
        }
        (StatusCode::NOT_FOUND, _) => "check provider_urn and agency_urn",
        _ => "",
    }
}
