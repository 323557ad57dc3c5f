//! Tests of the services' clients, over sockets.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use scm_harness::{folder::Folder, pki::Authority};
use tokio::time::Instant;

use super::{
    Failure, FailureKind, Source as _, ecs_agency::MetadataService, oidc::OidcFederation,
    pod_identity::PodIdentityAgent, service::Service,
};
use crate::{
    clock::{Clock, monotonic},
    config::{self, Config, Endpoint, TokenFile},
    scm::client::transport::Transport,
};

mod server;
mod wire;

use server::{HANG, Received, Server, response};

/// 2026-11-29T10:00:00Z, the time of `tests/credentials_wire.json`.
const NOW: u64 = 1_795_946_400;
const MARKER: &str = "p1anted";
const TOKEN: &str = "p1anted-token-of-the-pod";

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
}

/// The transport without variables.
static DEFAULT: OnceLock<Arc<Transport>> = OnceLock::new();

/// A configuration whose services are at one endpoint.
struct World {
    folder: Folder,
    endpoint: Endpoint,
    transport: Arc<Transport>,
}

impl World {
    fn new(endpoint: &str, variables: &[(&str, &str)]) -> Self {
        let config = config(endpoint, variables);
        let endpoint = config.projects.default_project().endpoint.clone();
        let new = || Arc::new(Transport::new(&config.upstream, 1).unwrap());
        // Reading the trust roots of the system takes long.
        let transport = if variables.is_empty() { DEFAULT.get_or_init(new).clone() } else { new() };
        Self { folder: Folder::new(), endpoint, transport }
    }

    fn token(&self, token: &str) -> TokenFile {
        TokenFile::new(self.folder.file("token", &format!("{token}\n")).into())
    }

    fn service(&self, name: &'static str) -> Service {
        Service::new(name, self.transport.clone(), Clock::from_fn(now))
    }

    fn oidc(&self) -> OidcFederation {
        let config = config::Oidc {
            sts_endpoint: self.endpoint.clone(),
            provider_urn: "iam::1:oidcProvider:p".to_owned(),
            agency_urn: "iam::1:agency:a".to_owned(),
            token_file: self.token(TOKEN),
            session_name: "s1".to_owned(),
            duration: Duration::from_secs(3600),
            policy: None,
            policy_ids: Vec::new(),
        };
        OidcFederation::new(config, self.service("STS"))
    }

    fn pod_identity(&self) -> PodIdentityAgent {
        let config = config::PodIdentity {
            endpoint: self.endpoint.clone(),
            path: "/v1/credentials?a=b".to_owned(),
            authorization_token_file: self.token(TOKEN),
        };
        PodIdentityAgent::new(config, self.service("the pod identity agent"))
    }

    fn metadata(&self) -> MetadataService {
        MetadataService::new(self.endpoint.clone(), self.service("the metadata service"))
    }
}

fn config(endpoint: &str, variables: &[(&str, &str)]) -> Config {
    let own = [
        ("HUAWEICLOUD_SDK_AK", "AK"),
        ("HUAWEICLOUD_SDK_SK", "SK"),
        ("HUAWEICLOUD_SDK_PROJECT_ID", "p"),
        ("SCM_GATEWAY__UPSTREAM__ENDPOINT", endpoint),
    ];
    let own = own.iter().chain(variables).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    config::load(None, &own.collect(), &Clock::system()).unwrap()
}

fn local(server: &Server) -> String {
    format!("http://127.0.0.1:{}", server.port)
}

/// Returns a response of STS with credentials that expire at this time.
fn issued(headers: &str, expiration: &str) -> String {
    let body = format!(
        r#"{{"credentials":{{"access_key_id":"HSTA","secret_access_key":"{MARKER}","security_token":"{MARKER}","expiration":"{expiration}"}}}}"#
    );
    response(200, headers, &body)
}

fn rejected(problem: &str) -> Failure {
    Failure { kind: FailureKind::Rejected, problem: problem.to_owned() }
}

#[tokio::test]
async fn the_expiration_is_corrected_by_the_date_of_the_response() {
    for (date, left) in [
        ("", 3600),
        ("Date: Sun, 29 Nov 2026 10:00:59 GMT\r\n", 3600),
        ("Date: Sun, 29 Nov 2026 10:30:00 GMT\r\n", 1800),
        ("Date: Sun, 29 Nov 2026 09:00:00 GMT\r\n", 7200),
    ] {
        let server = Server::start(vec![issued(date, "2026-11-29T12:00:00+01:00")]).await;
        let issued = World::new(&local(&server), &[]).oidc().get().await.unwrap();
        assert_eq!(issued.expires_at.duration_since(now()).unwrap().as_secs(), left, "{date}");
        assert!(!format!("{issued:?}").contains(MARKER), "{issued:?}");
    }
}

#[tokio::test]
async fn responses_without_all_fields_are_failures_without_their_text() {
    let fields = [
        ("access_key_id", "access key"),
        ("secret_access_key", "secret key"),
        ("security_token", "security token"),
        ("expiration", "expiration"),
    ];
    let none = "the response of STS has no credentials".to_owned();
    let mut bodies = vec![
        (String::new(), none.clone()),
        (MARKER.to_owned(), none.clone()),
        (format!("\"{MARKER}\""), none.clone()),
        (format!(r#"{{"credentials":"{MARKER}"}}"#), none.clone()),
        (format!(r#"{{"credentials":null,"x":"{MARKER}"}}"#), none.clone()),
    ];
    let whitespace = "in the response of STS must hold printable ASCII only, without whitespace";
    for (field, name) in fields {
        let with = |value: Option<&str>| {
            let mut credentials = serde_json::Map::new();
            for (field, _) in fields {
                let text = if field == "expiration" { "2026-11-29T11:00:00Z" } else { MARKER };
                credentials.insert(field.to_owned(), text.into());
            }
            match value {
                Some(value) => credentials.insert(field.to_owned(), serde_json::from_str(value).unwrap()),
                None => credentials.remove(field),
            };
            serde_json::json!({ "credentials": credentials }).to_string()
        };
        bodies.extend([None, Some("null"), Some("17"), Some("[]")].map(|value| (with(value), none.clone())));
        if field == "expiration" {
            let message = "the expiration in the response of STS is not a time of RFC 3339".to_owned();
            bodies.extend(["\"\"", "\"p1anted\"", "\"2026-11-29\""].map(|value| (with(Some(value)), message.clone())));
        } else {
            bodies.push((with(Some("\"\"")), format!("the {name} in the response of STS is empty")));
            bodies.push((with(Some("\"p1anted p1anted\"")), format!("the {name} {whitespace}")));
            let return_in = format!("the {name} {whitespace}; it has a carriage return");
            bodies.push((with(Some("\"p1anted\\r\\nx: y\"")), return_in));
        }
    }
    let replies = bodies.iter().map(|(body, _)| response(200, "", body)).collect();
    let server = Server::start(replies).await;
    let source = World::new(&local(&server), &[]);
    let source = source.oidc();
    for (body, problem) in bodies {
        assert_eq!(source.get().await, Err(Failure::failed(problem)), "{body}");
    }
}

#[tokio::test]
async fn error_codes_are_shown_unless_they_may_echo_the_token() {
    let body = |code: &str| format!(r#"{{"error_code":"{code}","error_msg":"{MARKER}","encoded":"{MARKER}"}}"#);
    for (code, problem) in [
        ("STS5.1", "STS responded 403 (STS5.1)"),
        ("p1anted-token", "STS responded 403"),
        (TOKEN, "STS responded 403"),
        ("x.p1anted-token-of-the-pod", "STS responded 403"),
        ("x.P1ANTED-TOKEN-OF-T", "STS responded 403"),
        ("no code", "STS responded 403"),
        ("403", "STS responded 403"),
    ] {
        let server = Server::start(vec![response(403, "", &body(code))]).await;
        let failure = World::new(&local(&server), &[]).oidc().get().await;
        assert_eq!(failure, Err(rejected(problem)), "{code}");
    }
    let token = response(200, "", TOKEN);
    let server = Server::start(vec![token, response(400, "", &body(&TOKEN[1..]))]).await;
    let failure = World::new(&local(&server), &[]).metadata().get().await;
    assert_eq!(failure, Err(rejected("the metadata service responded 400: check that the ECS has an agency")));
}

#[tokio::test]
async fn the_status_decides_whether_the_request_was_rejected() {
    const FAILED: FailureKind = FailureKind::Failed { retry_after: None };
    let after = |seconds| FailureKind::Failed { retry_after: Some(Duration::from_secs(seconds)) };
    for (status, headers, kind) in [
        (400, "", FailureKind::Rejected),
        (401, "Retry-After: 7\r\n", FailureKind::Rejected),
        (403, "", FailureKind::Rejected),
        (404, "", FailureKind::Rejected),
        (418, "", FailureKind::Rejected),
        (429, "", FAILED),
        (429, "Retry-After: 7\r\n", after(7)),
        (429, "Retry-After: 600\r\n", after(600)),
        (429, "Retry-After: Sun, 29 Nov 2026 10:00:30 GMT\r\n", after(30)),
        (429, "Retry-After: soon\r\n", FAILED),
        (500, "", FAILED),
        (503, "Retry-After: 7\r\n", FAILED),
        (201, "", FAILED),
        (204, "", FAILED),
        (301, "Location: /\r\n", FAILED),
        (308, "Location: /\r\n", FAILED),
    ] {
        let server = Server::start(vec![response(status, headers, "")]).await;
        let failure = World::new(&local(&server), &[]).pod_identity().get().await.unwrap_err();
        assert_eq!(failure.kind, kind, "{status} {headers}");
        assert_eq!(server.received().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn large_and_broken_bodies_are_failures() {
    let large = " ".repeat(64 * 1024 + 1);
    let broken = "HTTP/1.1 200 x\r\nContent-Length: 9\r\n\r\n{".to_owned();
    let broken_error = "HTTP/1.1 403 x\r\nContent-Length: 9\r\n\r\n{".to_owned();
    for (reply, failure) in [
        (response(200, "", &large), Failure::failed("STS does not respond: response larger than 64 KiB")),
        (broken, Failure::failed("STS does not respond: connection closed")),
        (response(403, "", &large), rejected("STS responded 403")),
        (broken_error, rejected("STS responded 403")),
        ("no HTTP".to_owned(), Failure::failed("STS does not respond: invalid HTTP response")),
        (String::new(), Failure::failed("STS does not respond: connection closed")),
    ] {
        let server = Server::start(vec![reply]).await;
        assert_eq!(World::new(&local(&server), &[]).oidc().get().await, Err(failure));
    }
}

#[tokio::test]
async fn a_metadata_token_that_is_no_longer_valid_is_replaced_once() {
    let token = response(200, "", "token==\n");
    let expired = response(401, "", "{}");
    let server = Server::start(vec![token.clone(), expired.clone(), token.clone(), expired.clone()]).await;
    let failure = World::new(&local(&server), &[]).metadata().get().await.unwrap_err();
    assert_eq!(failure, rejected("the metadata service responded 401: check that the ECS has an agency"));
    let lines: Vec<_> = server.received().into_iter().map(|received| received.line).collect();
    let pair = ["PUT /meta-data/latest/api/token", "GET /openstack/latest/securitykey"];
    assert_eq!(lines, [pair, pair].concat());
    let without_tokens = Server::start(vec![response(503, "", ""), expired]).await;
    let failure = World::new(&local(&without_tokens), &[]).metadata().get().await.unwrap_err();
    assert_eq!((failure.kind, without_tokens.received().len()), (FailureKind::Rejected, 2));
}

#[tokio::test]
async fn the_token_is_read_for_each_exchange() {
    let server = Server::start(vec![response(500, "", "")]).await;
    let world = World::new(&local(&server), &[]);
    let source = world.pod_identity();
    source.get().await.unwrap_err();
    world.token("rotated");
    source.get().await.unwrap_err();
    let token = |received: &Received| received.header("authorization").unwrap().to_owned();
    let tokens: Vec<_> = server.received().iter().map(token).collect();
    assert_eq!(tokens, [TOKEN, "rotated"]);
    let path = world.folder.path("token");
    for (content, problem) in [("", "is empty"), (" \n", "is only whitespace")] {
        world.folder.file("token", content);
        assert_eq!(source.get().await, Err(Failure::failed(format!("{path} {problem}"))));
    }
    std::fs::remove_file(&path).unwrap();
    let failure = source.get().await.unwrap_err();
    assert!(failure.problem.contains("No such file") && failure.problem.contains(&path), "{failure:?}");
    assert_eq!(server.received().len(), 2, "nothing is sent without a token");
}

#[tokio::test(start_paused = true)]
async fn a_changed_token_is_noticed_within_two_seconds() {
    let world = World::new("http://127.0.0.1:1", &[]);
    let source = world.pod_identity();
    source.get().await.unwrap_err();
    let start = monotonic();
    let change = async {
        tokio::time::sleep(Duration::from_secs(30)).await;
        std::fs::remove_file(world.folder.path("token")).unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.token(TOKEN);
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.token("rotated");
    };
    tokio::join!(source.changed(), change);
    let waited = monotonic() - start;
    assert!((40..=42).contains(&waited.as_secs()), "{waited:?}");
}

/// Returns how long a failing exchange takes.
async fn duration(source: &impl super::Source<Credentials = super::TemporaryCredentials>) -> (Duration, Failure) {
    let start: Instant = monotonic();
    let failure = source.get().await.unwrap_err();
    (monotonic() - start, failure)
}

#[tokio::test(start_paused = true)]
async fn an_exchange_that_hangs_has_a_timeout() {
    let server = Server::start(vec![HANG.to_owned()]).await;
    let world = World::new(&local(&server), &[]);
    let late = |name: &str| Failure::failed(format!("{name} does not respond: no response in time"));
    let (took, failure) = duration(&world.oidc()).await;
    assert_eq!((took.as_secs(), failure), (10, late("STS")));
    let (took, failure) = duration(&world.pod_identity()).await;
    assert_eq!((took.as_secs(), failure), (5, late("the pod identity agent")));
    let (took, failure) = duration(&world.metadata()).await;
    assert_eq!((took.as_secs(), failure), (5, late("the metadata service")));
}

#[tokio::test]
async fn the_trust_roots_of_scm_are_used_also_after_a_reload() {
    let authority = Authority::new();
    let server = Server::tls(vec![issued("", "2026-11-29T11:00:00Z")], &authority.server()).await;
    let ca = Folder::new();
    let ca = ca.file("ca.pem", &authority.pem);
    let world = World::new(&format!("https://localhost:{}", server.port), &[("SCM_GATEWAY__UPSTREAM__CA_FILE", &ca)]);
    let source = world.oidc();
    source.get().await.unwrap();
    world.transport.set_trust_roots(&[]).unwrap();
    let untrusted = Failure::failed("STS does not respond: unknown certificate issuer");
    assert_eq!(source.get().await, Err(untrusted));
    world.transport.set_trust_roots(&[CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()]).unwrap();
    source.get().await.unwrap();
}

#[tokio::test]
async fn only_sts_goes_through_the_proxy_and_not_on_loopback() {
    let proxy = Server::start(vec![response(403, "", "")]).await;
    let variables = [("SCM_GATEWAY__UPSTREAM__PROXY", &*local(&proxy))];
    let remote = World::new("https://192.0.2.1", &variables);
    let failure = remote.oidc().get().await;
    assert_eq!(failure, Err(Failure::failed("STS does not respond: rejected by the proxy")));
    let lines = || proxy.received().into_iter().map(|received| received.line).collect::<Vec<_>>();
    assert_eq!(lines(), ["CONNECT 192.0.2.1:443"]);
    let service = Server::start(vec![issued("", "2026-11-29T11:00:00Z")]).await;
    World::new(&local(&service), &variables).oidc().get().await.unwrap();
    tokio::time::pause(); // no response from the address, which is reserved for documentation
    remote.pod_identity().get().await.unwrap_err();
    assert_eq!(lines().len(), 1);
}
