//! Services on a manual clock, and requests to them.

use scm_emulator::{Claims, CredentialService, Issuer, Kind, ServiceOptions};
use serde_json::{Value, json};
use tokio::io::BufReader;
use tokio::net::TcpStream;

use crate::client::{Answer, ManualClock, exchange};

pub(crate) const STS_PATH: &str = "/v5/agencies/assume-with-oidc";
pub(crate) const POD_PATH: &str = "/v1/credentials";
pub(crate) const TOKEN_PATH: &str = "/meta-data/latest/api/token";
pub(crate) const KEY_PATH: &str = "/openstack/latest/securitykey";

/// A service, its clock and its issuer.
pub(crate) struct Lab {
    pub(crate) clock: ManualClock,
    pub(crate) issuer: Issuer,
    pub(crate) service: CredentialService,
}

impl Lab {
    pub(crate) async fn start(kind: impl Into<Kind>) -> Self {
        Self::at(ManualClock::default(), kind).await
    }

    pub(crate) async fn at(clock: ManualClock, kind: impl Into<Kind>) -> Self {
        let issuer = Issuer::default();
        let options = ServiceOptions { now: clock.clock(), ..ServiceOptions::default() };
        let service = CredentialService::start(kind, options, &issuer).await.unwrap();
        Self { clock, issuer, service }
    }

    /// Sends a request and reads the response. Returns `None` if the connection is closed first.
    pub(crate) async fn send(&self, request: &Ask) -> Option<Answer> {
        request.send(&self.service).await
    }

    pub(crate) async fn answer(&self, request: &Ask) -> Answer {
        self.send(request).await.unwrap()
    }

    /// Asserts that a request is rejected with this status and reason, and that it gets no credentials.
    pub(crate) async fn assert_rejected(&self, request: &Ask, status: u16, reason: &str) -> Answer {
        let before = self.issuer.issued().len();
        let answer = self.answer(request).await;
        let recorded = self.service.exchanges().pop().unwrap();
        assert_eq!((answer.status, recorded.rejection), (status, Some(reason)), "{recorded:?}");
        assert_eq!(self.issuer.issued().len(), before, "{reason}");
        answer
    }

    /// A valid request to STS.
    pub(crate) fn sts_request(&self) -> Value {
        sts_body(&Claims::oidc(self.clock.now()).encode())
    }
}

/// Returns the required fields of a request to STS.
pub(crate) fn sts_body(token: &str) -> Value {
    json!({
        "provider_urn": "iam::fedcba9876543210fedcba9876543210:oidcProvider:k8s-made-up",
        "agency_urn": "iam::fedcba9876543210fedcba9876543210:agency:scm-gateway",
        "agency_session_name": "scm-gateway-0",
        "id_token": token,
    })
}

/// A request.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) method: &'static str,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Ask {
    pub(crate) fn new(method: &'static str, target: &str) -> Self {
        Self { method, target: target.to_owned(), headers: Vec::new(), body: String::new() }.header("Host", "made-up")
    }

    pub(crate) fn sts(body: &Value) -> Self {
        Self::new("POST", STS_PATH).json(&body.to_string())
    }

    pub(crate) fn pod(token: &str) -> Self {
        Self::new("POST", POD_PATH).json("{}").header("Authorization", token)
    }

    pub(crate) fn token(ttl: &str) -> Self {
        Self::new("PUT", TOKEN_PATH).header("X-Metadata-Token-Ttl-Seconds", ttl)
    }

    pub(crate) fn key(token: Option<&str>) -> Self {
        let request = Self::new("GET", KEY_PATH);
        match token {
            Some(token) => request.header("X-Metadata-Token", token),
            None => request,
        }
    }

    fn json(self, body: &str) -> Self {
        Self { body: body.to_owned(), ..self }.header("Content-Type", "application/json")
    }

    /// Sets a header, in place of those with the same name.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub(crate) async fn send(&self, service: &CredentialService) -> Option<Answer> {
        let stream = TcpStream::connect(service.address()).await.unwrap();
        exchange(BufReader::new(stream), &self.bytes()).await
    }

    fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("Content-Length: {}\r\n\r\n{}", self.body.len(), self.body));
        text.into_bytes()
    }
}

/// Asserts the form of credentials: an access key of 20 characters, a secret of 40, and a token.
pub(crate) fn assert_credentials(credentials: &Value, names: [&str; 3]) {
    let [access_key, secret_key, token] = names.map(|name| credentials[name].as_str().unwrap());
    assert!(access_key.starts_with("HSTA"), "{access_key}");
    assert_eq!((access_key.len(), secret_key.len()), (20, 40));
    assert!(token.len() > 100);
}
