//! Who calls, and what they may.

use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use prost::Message as _;
use rcgen::SanType;
use scm_emulator::{SAMPLE_PROJECT, Step};
use scm_gateway::{grpc::service::certificate_service_client::CertificateServiceClient, proto::SaveInfoRequest};
use tonic::{Code, Request, Status, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};
use tonic_types::StatusExt as _;

use crate::harness::{
    Gateway, assert_status, emulator,
    folder::Folder,
    framed,
    pki::{Authority, dns, uri},
    read, sample,
};

const ORDERS: &str = "spiffe://example.org/ns/web/sa/orders";

/// The variables of these callers: identity, methods, projects.
fn callers(listed: &[(&str, &str, &str)]) -> Vec<(String, String)> {
    let entries = listed.iter().enumerate().flat_map(|(index, (identity, methods, projects))| {
        [("IDENTITY", identity), ("METHODS", methods), ("PROJECTS", projects)]
            .map(|(key, value)| (format!("SCM_GATEWAY__CALLERS__{index}__{key}"), (*value).to_owned()))
    });
    entries.collect()
}

async fn start(emulator: &scm_emulator::Emulator, listed: &[(&str, &str, &str)], more: &[(&str, &str)]) -> Gateway {
    let callers = callers(listed);
    let variables = callers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    Gateway::with(emulator, &variables.chain(more.iter().copied()).collect::<Vec<_>>()).await
}

/// A gateway with mutual TLS in front of these callers.
struct Mutual {
    emulator: scm_emulator::Emulator,
    gateway: Gateway,
    authority: Authority,
    _folder: Folder,
}

impl Mutual {
    async fn start(listed: &[(&str, &str, &str)]) -> Self {
        Self::with(listed, &[]).await
    }

    async fn with(listed: &[(&str, &str, &str)], more: &[(&str, &str)]) -> Self {
        let (emulator, authority, folder) = (emulator().await, Authority::new(), Folder::new());
        let variables = authority.variables(&folder, Some(&authority.pem));
        let variables = variables.iter().map(|(name, value)| (*name, value.as_str()));
        let gateway = start(&emulator, listed, &variables.chain(more.iter().copied()).collect::<Vec<_>>()).await;
        Self { emulator, gateway, authority, _folder: folder }
    }

    async fn channel(&self, names: Vec<SanType>) -> Channel {
        let issued = self.authority.client(names);
        self.authority.connect(&self.gateway.addresses.server, Some(&issued)).await.unwrap()
    }

    async fn client(&self, names: Vec<SanType>) -> CertificateServiceClient<Channel> {
        CertificateServiceClient::new(self.channel(names).await)
    }
}

fn assert_unknown(status: &Status) {
    assert_status(status, Code::Unauthenticated, "CALLER_UNAUTHENTICATED", None);
}

fn assert_refused(status: &Status) {
    assert_status(status, Code::PermissionDenied, "CALLER_NOT_ALLOWED", None);
}

#[tokio::test]
async fn a_caller_is_its_certificates_one_uri_and_may_call_what_is_listed() {
    let mutual = Mutual::start(&[(ORDERS, "SaveInfo", "*")]).await;
    let mut client = mutual.client(vec![uri(ORDERS), dns("other.example")]).await;
    client.save_info(sample()).await.unwrap();
    assert_refused(&client.read_info(read()).await.unwrap_err());
    assert_eq!(mutual.emulator.attempts(), 1);
}

#[tokio::test]
async fn another_uri_is_refused_however_alike() {
    let mutual = Mutual::start(&[(ORDERS, "SaveInfo", "*")]).await;
    for other in [
        "spiffe://example.org/ns/web/sa/orders2",
        "spiffe://example.org/ns/web/sa/Orders",
        "spiffe://example.org/ns/web/sa/orders/",
        "spiffe://example.org/ns/web/sa",
    ] {
        let mut client = mutual.client(vec![uri(other), dns("orders.example")]).await;
        assert_refused(&client.save_info(sample()).await.unwrap_err());
    }
    assert_eq!(mutual.emulator.attempts(), 0);
}

#[tokio::test]
async fn without_a_uri_a_dns_name_counts_in_any_case() {
    let mutual = Mutual::start(&[("Orders.example", "SaveInfo", "*")]).await;
    mutual.client(vec![dns("first.example"), dns("ORDERS.example")]).await.save_info(sample()).await.unwrap();
    let mut beside_a_uri = mutual.client(vec![dns("orders.example"), uri("spiffe://example.org/x")]).await;
    assert_refused(&beside_a_uri.save_info(sample()).await.unwrap_err());
    assert_eq!(mutual.emulator.attempts(), 1);
}

#[tokio::test]
async fn the_common_name_is_nobody_and_so_are_two_uris_and_no_certificate() {
    let mutual = Mutual::start(&[("admin", "SaveInfo", "*"), (ORDERS, "SaveInfo", "*")]).await;
    for names in [vec![], vec![uri(ORDERS), uri("spiffe://example.org/other")]] {
        assert_unknown(&mutual.client(names).await.save_info(sample()).await.unwrap_err());
    }
    let channel = mutual.authority.connect(&mutual.gateway.addresses.server, None).await.unwrap();
    assert_unknown(&CertificateServiceClient::new(channel).save_info(sample()).await.unwrap_err());
    assert_eq!(mutual.emulator.attempts(), 0);
}

#[tokio::test]
async fn the_caller_is_looked_at_before_the_project_and_the_project_before_the_fields() {
    let mutual = Mutual::start(&[(ORDERS, "SaveInfo", "*")]).await;
    let bad = SaveInfoRequest { project_id: "unknown".into(), cert_id: "!".into(), info: None };
    let mut stranger = mutual.client(vec![uri("spiffe://example.org/x")]).await;
    assert_refused(&stranger.save_info(bad.clone()).await.unwrap_err());
    let mut known = mutual.client(vec![uri(ORDERS)]).await;
    assert_refused(&known.save_info(bad.clone()).await.unwrap_err());
    let status = known.save_info(SaveInfoRequest { project_id: SAMPLE_PROJECT.into(), ..bad }).await.unwrap_err();
    assert_status(&status, Code::InvalidArgument, "INVALID_REQUEST", None);
    assert_eq!(mutual.emulator.attempts(), 0);
}

#[tokio::test]
async fn a_caller_uses_only_its_projects_the_default_one_too() {
    let folder = Folder::new();
    let (ak, sk) = (folder.file("ak", "AK"), folder.file("sk", "SK"));
    let emulator = emulator().await;
    let projects = [
        ("SCM_GATEWAY__SERVER__TRUST_XFCC", "true"),
        ("SCM_GATEWAY__DEFAULT_PROJECT", "first"),
        ("SCM_GATEWAY__PROJECTS__0__ID", "first"),
        ("SCM_GATEWAY__PROJECTS__0__AK_FILE", &ak),
        ("SCM_GATEWAY__PROJECTS__0__SK_FILE", &sk),
        ("SCM_GATEWAY__PROJECTS__1__ID", "second"),
        ("SCM_GATEWAY__PROJECTS__1__AK_FILE", &ak),
        ("SCM_GATEWAY__PROJECTS__1__SK_FILE", &sk),
    ];
    let gateway = start(&emulator, &[(ORDERS, "SaveInfo", "second")], &projects).await;
    let call = async |project: &str| {
        let request = SaveInfoRequest { project_id: project.into(), cert_id: "!".into(), ..sample() };
        gateway.client.clone().save_info(forwarded(request, &format!("URI={ORDERS}"))).await.unwrap_err()
    };
    assert_refused(&call("first").await);
    assert_refused(&call("").await);
    assert_refused(&call("third").await);
    assert_status(&call("second").await, Code::InvalidArgument, "INVALID_REQUEST", None);
}

fn forwarded<T>(message: T, header: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-forwarded-client-cert", header.parse().unwrap());
    request
}

#[tokio::test]
async fn behind_a_sidecar_the_header_tells_and_a_forged_element_does_not() {
    let emulator = emulator().await;
    let gateway = start(&emulator, &[(ORDERS, "SaveInfo", "*")], &[("SCM_GATEWAY__SERVER__TRUST_XFCC", "true")]).await;
    let mut client = gateway.client.clone();
    let sidecar = "By=spiffe://example.org/gateway;Hash=00";
    client.save_info(forwarded(sample(), &format!("{sidecar};URI={ORDERS}"))).await.unwrap();
    let forged = format!("URI={ORDERS},{sidecar};URI=spiffe://example.org/other");
    assert_refused(&client.save_info(forwarded(sample(), &forged)).await.unwrap_err());
    for nobody in [sidecar.to_owned(), format!("{sidecar};URI=\"{ORDERS}"), format!("URI={ORDERS},{sidecar}")] {
        assert_unknown(&client.save_info(forwarded(sample(), &nobody)).await.unwrap_err());
    }
    assert_unknown(&client.save_info(sample()).await.unwrap_err());
    assert_eq!(emulator.attempts(), 1);
}

#[tokio::test]
async fn without_trust_the_header_is_nothing() {
    let mutual = Mutual::start(&[(ORDERS, "SaveInfo", "*")]).await;
    let mut client = mutual.client(vec![uri("spiffe://example.org/x")]).await;
    assert_refused(&client.save_info(forwarded(sample(), &format!("URI={ORDERS}"))).await.unwrap_err());
    assert_eq!(mutual.emulator.attempts(), 0);
}

#[tokio::test]
async fn on_a_unix_socket_the_caller_is_its_user() {
    let (emulator, folder) = (emulator().await, Folder::new());
    let ours = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(folder.0.path()).unwrap());
    for (uid, may) in [(ours, true), (ours + 1, false)] {
        let listen = format!("unix:{}", folder.path(&format!("{uid}.sock")));
        let listed = format!("uid:{uid}");
        let gateway =
            start(&emulator, &[(&listed, "SaveInfo", "*")], &[("SCM_GATEWAY__SERVER__LISTEN", &listen)]).await;
        match gateway.save(sample()).await {
            Ok(_) => assert!(may),
            Err(status) => {
                assert!(!may, "{status:?}");
                assert_refused(&status);
            }
        }
    }
    assert_eq!(emulator.attempts(), 1);
}

#[tokio::test]
async fn health_answers_everybody_and_reflection_those_who_are_listed() {
    let mutual = Mutual::start(&[(ORDERS, "SaveInfo", "*")]).await;
    let question = || ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..ServerReflectionRequest::default()
    };
    let ask = async |channel: &Channel| {
        let questions = tokio_stream::iter([question()]);
        ServerReflectionClient::new(channel.clone()).server_reflection_info(questions).await.map(drop)
    };
    let stranger = mutual.authority.connect(&mutual.gateway.addresses.server, None).await.unwrap();
    HealthClient::new(stranger.clone()).check(HealthCheckRequest::default()).await.unwrap();
    assert_unknown(&ask(&stranger).await.unwrap_err());
    assert_refused(&ask(&mutual.channel(vec![dns("x.example")]).await).await.unwrap_err());
    ask(&mutual.channel(vec![uri(ORDERS)]).await).await.unwrap();
}

#[tokio::test]
async fn a_stranger_takes_no_place() {
    let emulator = emulator().await;
    let variables = [("SCM_GATEWAY__SERVER__TRUST_XFCC", "true"), ("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", "1")];
    let gateway = start(&emulator, &[(ORDERS, "SaveInfo", "*")], &variables).await;
    emulator.script(Step::Hang);
    let mut client = gateway.client.clone();
    let mut request = forwarded(sample(), &format!("URI={ORDERS}"));
    request.set_timeout(Duration::from_secs(60));
    let first = tokio::spawn(async move { client.save_info(request).await });
    emulator.wait_for_attempts(1).await;
    assert_unknown(&gateway.save(sample()).await.unwrap_err());
    first.abort();
}

#[tokio::test]
async fn a_caller_that_floods_leaves_the_others_their_places() {
    let emulator = emulator().await;
    let variables = [("SCM_GATEWAY__SERVER__TRUST_XFCC", "true"), ("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", "4")];
    let gateway = start(&emulator, &[(ORDERS, "SaveInfo", "*"), ("b.example", "SaveInfo", "*")], &variables).await;
    emulator.scripts([Step::Hang, Step::Hang]);
    let flood: Vec<_> = (0..2)
        .map(|_| {
            let mut client = gateway.client.clone();
            tokio::spawn(async move { client.save_info(forwarded(sample(), &format!("URI={ORDERS}"))).await })
        })
        .collect();
    emulator.wait_for_attempts(2).await;

    let mut client = gateway.client.clone();
    let status = client.save_info(forwarded(sample(), &format!("URI={ORDERS}"))).await.unwrap_err();
    assert_status(&status, Code::ResourceExhausted, "OVERLOADED", None);
    assert!(status.get_error_details().retry_info().is_some());
    client.save_info(forwarded(sample(), "DNS=b.example")).await.unwrap();
    assert_eq!(emulator.attempts(), 3);
    flood.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_caller_leaves_the_others_their_connections() {
    let listed = [(ORDERS, "SaveInfo", "*"), ("b.example", "SaveInfo", "*")];
    let mutual = Mutual::with(&listed, &[("SCM_GATEWAY__SERVER__MAX_CONNECTIONS", "4")]).await;
    let mut its_own = [mutual.client(vec![uri(ORDERS)]).await, mutual.client(vec![uri(ORDERS)]).await];
    for client in &mut its_own {
        client.save_info(sample()).await.unwrap();
    }
    let issued = mutual.authority.client(vec![uri(ORDERS)]);
    let third = async {
        let channel = mutual.authority.connect(&mutual.gateway.addresses.server, Some(&issued)).await.ok()?;
        CertificateServiceClient::new(channel).save_info(sample()).await.ok()
    };
    assert!(third.await.is_none(), "it is closed, at once or at its first call");
    mutual.client(vec![dns("b.example")]).await.save_info(sample()).await.unwrap();
    let refused = "scm_gateway_connections_refused_total{reason=\"limit_per_caller\"";
    assert!(mutual.gateway.metric::<u64>(refused).await >= 1);
    assert_eq!(mutual.emulator.attempts(), 3);
}

#[tokio::test]
async fn no_other_spelling_of_a_path_reaches_a_method_that_is_not_allowed() {
    let emulator = emulator().await;
    let variables = [("SCM_GATEWAY__SERVER__TRUST_XFCC", "true")];
    let gateway = start(&emulator, &[(ORDERS, "ReadInfo", "*")], &variables).await;
    let service = "huaweicloud.scm.v1.CertificateService";
    let http = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    for (path, code) in [
        (format!("/{service}/SaveInfo"), Code::PermissionDenied),
        (format!("/{service}/SaveInfo?x=/{service}/ReadInfo"), Code::PermissionDenied),
        (format!("/{service}/ReadInfo/../SaveInfo"), Code::Unimplemented),
        (format!("/{service}/SaveInfo/"), Code::Unimplemented),
        (format!("//{service}/SaveInfo"), Code::Unimplemented),
        (format!("/{service}/%53aveInfo"), Code::Unimplemented),
        (format!("/{service}/saveinfo"), Code::Unimplemented),
        (format!("/grpc.health.v1.Health/../../{service}/SaveInfo"), Code::Unimplemented),
    ] {
        let request = http::Request::post(format!("http://{}{path}", gateway.addresses.server))
            .header("content-type", "application/grpc")
            .header("x-forwarded-client-cert", format!("URI={ORDERS}"))
            .body(Full::<Bytes>::from(framed(0, &sample().encode_to_vec())))
            .unwrap();
        let response = http.request(request).await.unwrap();
        let status = Status::from_header_map(response.headers()).unwrap_or_else(|| panic!("{path}: {response:?}"));
        assert_eq!(status.code(), code, "{path}");
    }
    assert_eq!(emulator.attempts(), 0);
}

#[tokio::test]
async fn a_stranger_is_refused_before_its_message_has_come() {
    let mutual = Mutual::start(&[(ORDERS, "SaveInfo", "*")]).await;
    let mut stranger = mutual.client(vec![dns("x.example")]).await;
    // Longer than any window: it is never sent whole.
    let request = SaveInfoRequest { cert_id: "x".repeat(16 * 1024 * 1024), ..sample() };
    assert_refused(&stranger.save_info(request).await.unwrap_err());
    assert_eq!(mutual.emulator.attempts(), 0);
}
