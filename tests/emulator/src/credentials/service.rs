//! A running service: it checks requests, records them, and issues credentials or applies the script.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::issuer::{self, Issue, Issued, Issuer, TimeFormat};
use super::metadata::Tokens;
use super::{Entitled, Exchange, Grant, Kind, Refusal, ServiceOptions};
use crate::http::Request;
use crate::journal::lock;
use crate::script::{Reply, Script, Step};
use crate::server::{Listening, Service, Settings};
use crate::{Clock, scm};

/// The key of the steps of every request.
const ANY: &str = "";

/// The state of a service.
struct Issuing {
    kind: Kind,
    issuer: Issuer,
    now: Clock,
    validity: Mutex<Option<Duration>>,
    format: Option<TimeFormat>,
    exchanges: Mutex<Vec<Exchange>>,
    last: Mutex<Option<Issued>>,
    tokens: Tokens,
}

impl Issuing {
    /// Checks a request, and returns what it is entitled to.
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
        Reply::json(200, &body.to_string()).header("X-Request-Id", scm::request_id())
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
        scm::gateway_error(status, "APIG.0201", text)
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
            tokens: Tokens::default(),
        };
        let settings = Settings {
            listen: options.listen,
            tls: options.tls,
            now: options.now,
            service_time: Duration::ZERO,
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
