//! The services that issue temporary credentials: STS, the pod identity agent of CCE, and the metadata service of an
//! ECS.

mod issuer;
mod metadata;
mod pod_identity;
mod sts;
mod token;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde_json::Value;

pub use issuer::{Field, Issue, Issued, Issuer, Rights, TimeFormat};
pub use metadata::{Metadata, Version};
pub use pod_identity::{Association, PodIdentity};
pub use sts::{Agency, Provider, Sts};
pub use token::Claims;

use crate::http::Request;
use crate::journal::lock;
use crate::options::system_time;
use crate::script::{Reply, Script, Step};
use crate::server::{Listening, Service, Settings};
use crate::{Clock, Observer, Tls};
use issuer::Names;

/// The key of the steps of every request.
const ANY: &str = "";

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
    /// The time that a regular response takes.
    pub service_time: Duration,
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
            service_time: Duration::ZERO,
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

/// The state of a service.
struct Issuing {
    kind: Kind,
    issuer: Issuer,
    now: Clock,
    validity: Mutex<Option<Duration>>,
    format: Option<TimeFormat>,
    exchanges: Mutex<Vec<Exchange>>,
    last: Mutex<Option<Issued>>,
    tokens: metadata::Tokens,
}

impl Issuing {
    /// Checks a request. Returns the key of its steps, too.
    fn check(&self, request: &Request, now: SystemTime) -> Result<Grant, Refusal> {
        match &self.kind {
            Kind::Sts(sts) => sts.check(request, now).map(Grant::Credentials),
            Kind::PodIdentity(agent) => agent.check(request, now).map(Grant::Credentials),
            Kind::Metadata(metadata) => metadata.check(request, &self.tokens, now),
        }
    }

    fn issue(&self, entitled: &Entitled, change: Option<&Issue>) -> Reply {
        let now = (self.now)();
        let mut last = lock(&self.last);
        let lasting = |margin: Duration| last.clone().filter(|issued| issued.expires_at > now + margin);
        let again = match change {
            Some(Issue::Again) => last.clone(),
            Some(_) => None,
            None => entitled.renew_before.and_then(lasting),
        };
        let issued = again.unwrap_or_else(|| {
            let expires_at = match change {
                Some(Issue::Valid(validity)) => now + *validity,
                Some(Issue::Expired(ago)) => now - *ago,
                _ => now + lock(&self.validity).unwrap_or(entitled.validity),
            };
            self.issuer.issue(&entitled.rights, expires_at)
        });
        *last = Some(issued.clone());
        let format = self.format.unwrap_or(entitled.format);
        let body = issuer::show(&issued, entitled.names, format, change, &entitled.rest);
        Reply::json(200, &body.to_string()).header("X-Request-Id", crate::scm::request_id())
    }
}

impl Service for Issuing {
    type Admitted = Result<Grant, Refusal>;

    fn admit(&self, request: &Request) -> Self::Admitted {
        let checked = self.check(request, (self.now)());
        lock(&self.exchanges).push(Exchange {
            method: request.method.clone(),
            target: request.target.clone(),
            headers: request.texts(),
            body: request.body.clone(),
            rejection: Self::rejection(&checked),
        });
        checked
    }

    fn rejection(admitted: &Self::Admitted) -> Option<&'static str> {
        admitted.as_ref().err().map(|refusal| refusal.reason)
    }

    /// Scripts can be for the last segment of the path, such as `securitykey`.
    fn step(&self, request: &Request, _: &Self::Admitted, script: &Script) -> Step {
        let segment = request.path().rsplit('/').next().unwrap_or_default();
        script.step_of([segment, ANY].into_iter())
    }

    fn serve(&self, _: &Request, admitted: Self::Admitted, issue: Option<&Issue>) -> Reply {
        match admitted {
            Ok(Grant::Credentials(entitled)) => self.issue(&entitled, issue),
            Ok(Grant::Other(reply)) => reply,
            Err(refusal) => refusal.reply,
        }
    }

    fn unreadable(&self, status: u16, text: &str) -> Reply {
        crate::scm::gateway_error(status, "APIG.0201", text)
    }
}

/// A running service that issues temporary credentials. Dropping it closes its port and all its connections.
pub struct CredentialService(Listening<Issuing>);

impl CredentialService {
    /// Starts a service. The emulator of the issuer accepts the credentials.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn start(kind: impl Into<Kind>, options: ServiceOptions, issuer: &Issuer) -> io::Result<Self> {
        let issuing = Issuing {
            kind: kind.into(),
            issuer: issuer.clone(),
            now: Arc::clone(&options.now),
            validity: Mutex::new(options.validity),
            format: options.format,
            exchanges: Mutex::default(),
            last: Mutex::default(),
            tokens: metadata::Tokens::default(),
        };
        let settings = Settings {
            listen: options.listen,
            tls: options.tls,
            now: options.now,
            service_time: options.service_time,
            observer: options.observer,
        };
        Listening::start(issuing, settings, Script::default()).await.map(Self)
    }

    /// Returns the scheme, host and port, without a trailing slash.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.0.endpoint()
    }

    /// Returns the URL that a pod identity client gets. For other services it is the endpoint.
    #[must_use]
    pub fn full_uri(&self) -> String {
        match &self.0.server.service.kind {
            Kind::PodIdentity(agent) => format!("{}{}", self.endpoint(), agent.target),
            Kind::Sts(_) | Kind::Metadata(_) => self.endpoint(),
        }
    }

    /// Returns the address that the service listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Sets how long further credentials are valid. With `None`, the request or the service decides.
    pub fn set_validity(&self, validity: Option<Duration>) {
        *lock(&self.0.server.service.validity) = validity;
    }

    /// Appends a step to the script.
    pub fn script(&self, step: Step) {
        self.scripts([step]);
    }

    /// Appends steps to the script.
    pub fn scripts(&self, steps: impl IntoIterator<Item = Step>) {
        self.0.server.script.push(steps);
    }

    /// Sets the step of the next request that has no other step and whose path ends with this segment, such as
    /// `securitykey`.
    pub fn script_for(&self, segment: &str, step: Step) {
        self.0.server.script.insert(segment, step);
    }

    /// Sets the step of every request that has no other step. With [`Step::Serve`], requests are served again.
    pub fn always(&self, step: Step) {
        self.always_for(ANY, step);
    }

    /// Sets the step of every request that has no other step and whose path ends with this segment.
    pub fn always_for(&self, segment: &str, step: Step) {
        let step = Some(step).filter(|step| !matches!(step, Step::Serve));
        self.0.server.script.always(segment, step);
    }

    /// Delays every response until [`resume`](Self::resume).
    pub fn pause(&self) {
        self.0.server.responding.send_replace(false);
    }

    /// Sends the delayed responses, and all others at once.
    pub fn resume(&self) {
        self.0.server.responding.send_replace(true);
    }

    /// Returns the number of script steps that no request has used yet.
    #[must_use]
    pub fn steps_left(&self) -> usize {
        self.0.server.script.len()
    }

    /// Replaces the certificate that new connections get. A service without TLS keeps using plain text.
    pub fn set_tls(&self, tls: Tls) {
        self.0.server.certificates().replace(tls);
    }

    /// Returns the complete requests, in order of arrival.
    #[must_use]
    pub fn exchanges(&self) -> Vec<Exchange> {
        lock(&self.0.server.service.exchanges).clone()
    }

    /// Returns the number of requests, each counted once its head is complete.
    #[must_use]
    pub fn attempts(&self) -> usize {
        self.0.server.counters.attempts()
    }

    /// Returns the number of accepted TCP connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.server.counters.connections()
    }

    /// Waits until at least `count` requests have arrived, without a timeout.
    pub async fn wait_for_attempts(&self, count: usize) {
        self.0.server.counters.wait_for_attempts(count).await;
    }
}

impl fmt::Debug for CredentialService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialService").field("address", &self.0.address).finish_non_exhaustive()
    }
}
