//! The services that issue temporary credentials: STS, the pod identity agent of CCE, and the metadata service of an
//! ECS.

mod issuer;
mod metadata;
mod pod_identity;
mod service;
mod sts;
mod token;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

pub use issuer::{Field, Issue, Issued, Issuer, Rights, TimeFormat};
pub use metadata::{Metadata, Version};
pub use pod_identity::{Association, PodIdentity};
pub use service::CredentialService;
pub use sts::{Agency, Provider, Sts};
pub use token::Claims;

use crate::options::system_time;
use crate::script::Reply;
use crate::{Clock, Observer, Tls};
use issuer::Names;

/// The options of every service that issues temporary credentials.
#[derive(Clone)]
pub struct ServiceOptions {
    /// The address to listen on. Port 0 selects a free port.
    pub listen: SocketAddr,
    /// The TLS configuration. Without it the service uses plain text.
    pub tls: Option<Tls>,
    /// The server's clock.
    pub now: Clock,
    /// How long the credentials are valid, whatever is requested.
    pub validity: Option<Duration>,
    /// The form of the expiration, if it is not the service's own.
    pub format: Option<TimeFormat>,
    /// The function that is called for every processed request.
    pub observer: Option<Observer>,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: None,
            now: Arc::new(system_time),
            validity: None,
            format: None,
            observer: None,
        }
    }
}

impl fmt::Debug for ServiceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceOptions").field("listen", &self.listen).field("tls", &self.tls).finish_non_exhaustive()
    }
}

/// Which service issues the credentials.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Kind {
    /// STS.
    Sts(Sts),
    /// The pod identity agent of CCE.
    PodIdentity(PodIdentity),
    /// The metadata service of an ECS.
    Metadata(Metadata),
}

impl From<Sts> for Kind {
    fn from(sts: Sts) -> Self {
        Self::Sts(sts)
    }
}

impl From<PodIdentity> for Kind {
    fn from(agent: PodIdentity) -> Self {
        Self::PodIdentity(agent)
    }
}

impl From<Metadata> for Kind {
    fn from(metadata: Metadata) -> Self {
        Self::Metadata(metadata)
    }
}

/// What a valid request gets.
pub(crate) enum Grant {
    Credentials(Entitled),
    /// Something else, such as a token of the metadata service.
    Other(Reply),
}

/// The credentials that a request gets.
pub(crate) struct Entitled {
    rights: Rights,
    validity: Duration,
    names: &'static Names,
    format: TimeFormat,
    /// The other fields of the response.
    rest: Value,
    /// The last credentials are returned again while they are valid for longer than this.
    renew_before: Option<Duration>,
}

/// Why a request is rejected, as a fixed text without any value of the request, and the response.
pub(crate) struct Refusal {
    reason: &'static str,
    reply: Reply,
}

impl Refusal {
    fn new(reason: &'static str, reply: Reply) -> Self {
        Self { reason, reply }
    }
}

/// A request that a service received. Its debug output has no token.
#[derive(Clone)]
pub struct Exchange {
    /// The method as it was received.
    pub method: String,
    /// Path and query, as they were received.
    pub target: String,
    /// The header lines in their received order and case. Bytes that are not UTF-8 are replaced.
    pub headers: Vec<(String, String)>,
    /// The content.
    pub body: Vec<u8>,
    /// Why the request is rejected, or `None` if it is valid. A step of the script does not count.
    pub rejection: Option<&'static str>,
}

impl Exchange {
    /// Returns the value of the first header with this name. The name is case-insensitive.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Returns the content as JSON, or null if it is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Returns the token that the request presents.
    #[must_use]
    pub fn token(&self) -> Option<String> {
        let in_body = self.json().get("id_token").and_then(Value::as_str).map(str::to_owned);
        in_body
            .or_else(|| self.header("authorization").map(str::to_owned))
            .or_else(|| self.header("x-metadata-token").map(str::to_owned))
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("method", &self.method)
            .field("target", &self.target)
            .field("rejection", &self.rejection)
            .finish_non_exhaustive()
    }
}

/// Returns the `assumed_agency` of a response: the URN and the id of a session of this agency.
fn assumed_agency(urn: &str, session: &str) -> Value {
    let account = urn.split(':').nth(2).unwrap_or_default();
    let name = urn.rsplit(':').next().unwrap_or_default();
    json!({
        "urn": format!("sts::{account}::assumed-agency:{name}/{session}"),
        "id": format!("{}:{session}", crate::SAMPLE_PROJECT),
    })
}
