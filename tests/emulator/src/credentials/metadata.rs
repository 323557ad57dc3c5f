//! The metadata service of an ECS, which returns the credentials of the ECS's agency: version 2 with tokens, and version
//! 1 without.

use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::issuer::{Names, Rights, TimeFormat, random};
use super::{Entitled, Grant, Refusal};
use crate::http::Request;
use crate::journal::lock;
use crate::script::Reply;

const TOKEN_PATH: &str = "/meta-data/latest/api/token";
const KEY_PATH: &str = "/openstack/latest/securitykey";
/// The text by which the vendor's SDKs recognize an ECS without an agency.
const NO_AGENCY: &str = "Please configure Cloud Service Agency first";
const MAX_TTL: u64 = 21_600;
const NAMES: Names = Names {
    object: "credential",
    access_key: "access",
    secret_key: "secret",
    security_token: "securitytoken",
    expiration: "expires_at",
};

/// The content of the metadata service.
#[derive(Debug, Clone)]
pub struct Metadata {
    /// Whether a token is needed.
    pub version: Version,
    /// What the ECS's agency can access, or `None` for an ECS without an agency.
    pub agency: Option<Rights>,
    /// How long new credentials are valid.
    pub validity: Duration,
    /// The service returns the same credentials until they are valid for less than this.
    pub renew_before: Duration,
}

impl Default for Metadata {
    fn default() -> Self {
        Self {
            version: Version::Two,
            agency: Some(Rights::default()),
            validity: Duration::from_secs(24 * 3600),
            renew_before: Duration::from_secs(3600),
        }
    }
}

/// The version of the metadata service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Credentials need no token. A request for a token gets this status.
    One(u16),
    /// Credentials need a token.
    Two,
}

/// The tokens that the service has returned, and when they expire.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<Vec<(String, SystemTime)>>);

impl Tokens {
    fn create(&self, ttl: Duration, now: SystemTime) -> String {
        let token = format!("EXAMPLEimdsTOKEN{}==", random(b"0123456789ABCDEFGHIJKLMNOPQRSTUV", 38));
        lock(&self.0).push((token.clone(), now + ttl));
        token
    }

    fn has(&self, token: &[u8], now: SystemTime) -> bool {
        lock(&self.0).iter().any(|(known, expires_at)| known.as_bytes() == token && now < *expires_at)
    }
}

impl Metadata {
    /// Checks a request for a token or for credentials.
    pub(crate) fn check(&self, request: &Request, tokens: &Tokens, now: SystemTime) -> Result<Grant, Refusal> {
        match (request.path(), request.method.as_str()) {
            (TOKEN_PATH, "PUT") => self.check_token_request(request, tokens, now).map(Grant::Other),
            (KEY_PATH, "GET") => self.check_key_request(request, tokens, now).map(Grant::Credentials),
            (TOKEN_PATH | KEY_PATH, _) => {
                Err(refusal(405, "another method", &json!({"message": "Method Not Allowed"})))
            }
            _ => Err(refusal(404, "unknown path", &json!({"message": "Not Found"}))),
        }
    }

    fn check_token_request(&self, request: &Request, tokens: &Tokens, now: SystemTime) -> Result<Reply, Refusal> {
        if let Version::One(status) = self.version {
            return Err(refusal(status, "version 1 has no tokens", &json!({"error_message": "made up"})));
        }
        let values: Vec<&[u8]> = request.values("x-metadata-token-ttl-seconds").collect();
        let ttl = match values[..] {
            [value] => std::str::from_utf8(value).ok().and_then(|ttl| ttl.parse::<u64>().ok()),
            _ => None,
        };
        match ttl.filter(|ttl| (1..=MAX_TTL).contains(ttl) && request.body.is_empty()) {
            None => Err(refusal(400, "no TTL from 1 to 21600, or a body", &json!({"error_message": "made up"}))),
            Some(ttl) => {
                let token = tokens.create(Duration::from_secs(ttl), now);
                Ok(Reply::new(200).header("Content-Type", "text/plain").body(token))
            }
        }
    }

    fn check_key_request(&self, request: &Request, tokens: &Tokens, now: SystemTime) -> Result<Entitled, Refusal> {
        let mut sent = request.values("x-metadata-token");
        if self.version == Version::Two && !sent.next().is_some_and(|token| tokens.has(token, now)) {
            return Err(refusal(401, "no token, an unknown one, or an expired one", &json!({"message": "made up"})));
        }
        let rights = self.agency.clone().ok_or_else(|| {
            let body = json!({"message": NO_AGENCY, "title": "Unauthorized", "code": 401});
            refusal(401, "the ECS has no agency", &body)
        })?;
        Ok(Entitled {
            rights,
            validity: self.validity,
            names: &NAMES,
            format: TimeFormat::Utc(6),
            rest: json!({}),
            renew_before: Some(self.renew_before),
        })
    }
}

fn refusal(status: u16, reason: &'static str, body: &Value) -> Refusal {
    Refusal::new(reason, Reply::json(status, &body.to_string()))
}
