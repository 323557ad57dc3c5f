//! Identification and authorization of callers.

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

/// Returns the variables of callers with identity, methods and projects.
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

/// A gateway with mutual TLS and a list of callers.
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
        let emulator = emulator().await;
        let authority = Authority::new();
        let folder = Folder::new();
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

fn assert_unauthenticated(status: &Status) {
    assert_status(status, Code::Unauthenticated, "CALLER_UNAUTHENTICATED", None);
}

fn assert_not_allowed(status: &Status) {
    assert_status(status, Code::PermissionDenied, "CALLER_NOT_ALLOWED", None);
}

#[tokio::test]
async fn caller_is_the_uri_san_and_calls_listed_methods() {
    let mutual = Mutual::start(&[(ORDERS, "SaveInfo", "*")]).await;
    let mut client = mutual.client(vec![uri(ORDERS), dns("other.example")]).await;
    client.save_info(sample()).await.unwrap();
    assert_not_allowed(&client.read_info(read()).await.unwrap_err());
    assert_eq!(mutual.emulator.attempts(), 1);
}

#[tokio::test]
async fn similar_uris_are_not_allowed() {
    let mutual = Mutual::start(&[(ORDERS, "SaveInfo", "*")]).await;
    for other in [
        "spiffe://example.org/ns/web/sa/orders2",
        "spiffe://example.org/ns/web/sa/Orders",
        "spiffe://example.org/ns/web/sa/orders/",
        "spiffe://example.org/ns/web/sa",
    ] {
        let mut client = mutual.client(vec![uri(other), dns("orders.example")]).await;
        assert_not_allowed(&client.save_info(sample()).await.unwrap_err());
    }
    assert_eq!(mutual.emulator.attempts(), 0);
}

#[tokio::test]
async fn dns_san_in_any_case_identifies_without_a_uri() {
    let mutual = Mutual::start(&[("Orders.example", "SaveInfo", "*")]).await;
    mutual.client(vec![dns("first.example"), dns("ORDERS.example")]).await.save_info(sample()).await.unwrap();
    let mut with_a_uri = mutual.client(vec![dns("orders.example"), uri("spiffe://example.org/x")]).await;
    assert_not_allowed(&with_a_uri.save_info(sample()).await.unwrap_err());
    assert_eq!(mutual.emulator.attempts(), 1);
}

#[tokio::test]
async fn common_name_and_two_uris_identify_no_caller() {
    let mutual = Mutual::start(&[("admin", "SaveInfo", "*"), (ORDERS, "SaveInfo", "*")]).await;
    for names in [vec![], vec![uri(ORDERS), uri("spiffe://example.org/other")]] {
        assert_unauthenticated(&mutual.client(names).await.save_info(sample()).await.unwrap_err());
    }
    let channel = mutual.authority.connect(&mutual.gateway.addresses.server, None).await.unwrap();
    assert_unauthenticated(&CertificateServiceClient::new(channel).save_info(sample()).await.unwrap_err());
    assert_eq!(mutual.emulator.attempts(), 0);
}

#[tokio::test]
async fn caller_project_and_fields_are_checked_in_order() {
    let mutual = Mutual::start(&[(ORDERS, "SaveInfo", "*")]).await;
    let bad = SaveInfoRequest { project_id: "unknown".into(), cert_id: "!".into(), info: None };
    let mut unlisted = mutual.client(vec![uri("spiffe://example.org/x")]).await;
    assert_not_allowed(&unlisted.save_info(bad.clone()).await.unwrap_err());
    let mut listed = mutual.client(vec![uri(ORDERS)]).await;
    assert_not_allowed(&listed.save_info(bad.clone()).await.unwrap_err());
    let status = listed.save_info(SaveInfoRequest { project_id: SAMPLE_PROJECT.into(), ..bad }).await.unwrap_err();
    assert_status(&status, Code::InvalidArgument, "INVALID_REQUEST", None);
    assert_eq!(mutual.emulator.attempts(), 0);
}

#[tokio::test]
async fn caller_uses_only_its_listed_projects() {
    let folder = Folder::new();
    let ak = folder.file("ak", "AK");
    let sk = folder.file("sk", "SK");
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
    assert_not_allowed(&call("first").await);
    assert_not_allowed(&call("").await);
    assert_not_allowed(&call("third").await);
    assert_status(&call("second").await, Code::InvalidArgument, "INVALID_REQUEST", None);
}

fn forwarded<T>(message: T, header: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-forwarded-client-cert", header.parse().unwrap());
    request
}

#[tokio::test]
async fn a_header_with_several_elements_is_rejected() {
    let emulator = emulator().await;
    let gateway = start(&emulator, &[(ORDERS, "SaveInfo", "*")], &[("SCM_GATEWAY__SERVER__TRUST_XFCC", "true")]).await;
    let mut client = gateway.client.clone();
    let sidecar = "By=spiffe://example.org/gateway;Hash=00";
    client.save_info(forwarded(sample(), &format!("{sidecar};URI={ORDERS}"))).await.unwrap();
    for header in [
        format!("{sidecar};URI=x:a,By=x;URI={ORDERS}"), // one URI that Envoy did not quote
        format!("URI={ORDERS},{sidecar};URI={ORDERS}"),
        format!("{sidecar};URI={ORDERS};a=b"),
        format!("{sidecar};URI=x:a;URI={ORDERS}"),
        format!("{sidecar};URI=\"{ORDERS}"),
        sidecar.to_owned(),
    ] {
        assert_unauthenticated(&client.save_info(forwarded(sample(), &header)).await.unwrap_err());
    }
    let mut request = forwarded(sample(), &format!("URI={ORDERS}"));
    request.metadata_mut().append("x-forwarded-client-cert", format!("URI={ORDERS}").parse().unwrap());
    assert_unauthenticated(&client.save_info(request).await.unwrap_err());
    assert_unauthenticated(&client.save_info(sample()).await.unwrap_err());
    assert_eq!(emulator.attempts(), 1);
}

#[tokio::test]
async fn the_last_element_counts_behind_a_chain_of_proxies() {
    let emulator = emulator().await;
    let variables = [("SCM_GATEWAY__SERVER__TRUST_XFCC", "true"), ("SCM_GATEWAY__SERVER__XFCC_ELEMENTS", "last")];
    let gateway = start(&emulator, &[(ORDERS, "SaveInfo", "*")], &variables).await;
    let mut client = gateway.client.clone();
    let sidecar = "By=spiffe://example.org/gateway;Hash=00";
    client.save_info(forwarded(sample(), &format!("{sidecar};URI={ORDERS}"))).await.unwrap();
    client.save_info(forwarded(sample(), &format!("URI=x:a,{sidecar};URI={ORDERS}"))).await.unwrap();
    let mut request = forwarded(sample(), "URI=x:a");
    request.metadata_mut().append("x-forwarded-client-cert", format!("URI={ORDERS}").parse().unwrap());
    client.save_info(request).await.unwrap();
    let forged = format!("URI={ORDERS},{sidecar};URI=spiffe://example.org/other");
    assert_not_allowed(&client.save_info(forwarded(sample(), &forged)).await.unwrap_err());
    assert_unauthenticated(
        &client.save_info(forwarded(sample(), &format!("URI={ORDERS},{sidecar}"))).await.unwrap_err(),
    );
    assert_eq!(emulator.attempts(), 3);
}

#[tokio::test]
async fn untrusted_header_is_ignored() {
    let mutual = Mutual::start(&[(ORDERS, "SaveInfo", "*")]).await;
    let mut client = mutual.client(vec![uri("spiffe://example.org/x")]).await;
    assert_not_allowed(&client.save_info(forwarded(sample(), &format!("URI={ORDERS}"))).await.unwrap_err());
    assert_eq!(mutual.emulator.attempts(), 0);
}

#[tokio::test]
async fn unix_socket_identifies_the_peer_user() {
    let emulator = emulator().await;
    let folder = Folder::new();
    let own = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(folder.0.path()).unwrap());
    for (uid, allowed) in [(own, true), (own + 1, false)] {
        let listen = format!("unix:{}", folder.path(&format!("{uid}.sock")));
        let listed = format!("uid:{uid}");
        let gateway =
            start(&emulator, &[(&listed, "SaveInfo", "*")], &[("SCM_GATEWAY__SERVER__LISTEN", &listen)]).await;
        match gateway.save(sample()).await {
            Ok(_) => assert!(allowed),
            Err(status) => {
                assert!(!allowed, "{status:?}");
                assert_not_allowed(&status);
            }
        }
    }
    assert_eq!(emulator.attempts(), 1);
}

#[tokio::test]
async fn health_is_open_and_reflection_needs_a_listed_caller() {
    let mutual = Mutual::start(&[(ORDERS, "SaveInfo", "*")]).await;
    let request = || ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..ServerReflectionRequest::default()
    };
    let reflect = async |channel: &Channel| {
        let requests = tokio_stream::iter([request()]);
        ServerReflectionClient::new(channel.clone()).server_reflection_info(requests).await.map(drop)
    };
    let unidentified = mutual.authority.connect(&mutual.gateway.addresses.server, None).await.unwrap();
    HealthClient::new(unidentified.clone()).check(HealthCheckRequest::default()).await.unwrap();
    assert_unauthenticated(&reflect(&unidentified).await.unwrap_err());
    assert_not_allowed(&reflect(&mutual.channel(vec![dns("x.example")]).await).await.unwrap_err());
    reflect(&mutual.channel(vec![uri(ORDERS)]).await).await.unwrap();
}

#[tokio::test]
async fn unlisted_caller_uses_no_permit() {
    let emulator = emulator().await;
    let variables = [("SCM_GATEWAY__SERVER__TRUST_XFCC", "true"), ("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", "1")];
    let gateway = start(&emulator, &[(ORDERS, "SaveInfo", "*")], &variables).await;
    emulator.script(Step::Hang);
    let mut client = gateway.client.clone();
    let mut request = forwarded(sample(), &format!("URI={ORDERS}"));
    request.set_timeout(Duration::from_secs(60));
    let first = tokio::spawn(async move { client.save_info(request).await });
    emulator.wait_for_attempts(1).await;
    assert_unauthenticated(&gateway.save(sample()).await.unwrap_err());
    first.abort();
}

#[tokio::test]
async fn one_caller_cannot_use_all_permits() {
    let emulator = emulator().await;
    let variables = [("SCM_GATEWAY__SERVER__TRUST_XFCC", "true"), ("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", "4")];
    let gateway = start(&emulator, &[(ORDERS, "SaveInfo", "*"), ("b.example", "SaveInfo", "*")], &variables).await;
    let mut client = gateway.client.clone();
    client.save_info(forwarded(sample(), "DNS=b.example")).await.unwrap();
    emulator.scripts([Step::Hang, Step::Hang]);
    let flood: Vec<_> = (0..2)
        .map(|_| {
            let mut client = gateway.client.clone();
            tokio::spawn(async move { client.save_info(forwarded(sample(), &format!("URI={ORDERS}"))).await })
        })
        .collect();
    emulator.wait_for_attempts(3).await;

    let status = client.save_info(forwarded(sample(), &format!("URI={ORDERS}"))).await.unwrap_err();
    assert_status(&status, Code::ResourceExhausted, "OVERLOADED", None);
    assert!(status.get_error_details().retry_info().is_some());
    client.save_info(forwarded(sample(), "DNS=b.example")).await.unwrap();
    assert_eq!(emulator.attempts(), 4);
    flood.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn one_caller_cannot_use_all_connections() {
    let listed = [(ORDERS, "SaveInfo", "*"), ("b.example", "SaveInfo", "*")];
    let mutual = Mutual::with(&listed, &[("SCM_GATEWAY__SERVER__MAX_CONNECTIONS", "4")]).await;
    let mut clients = [mutual.client(vec![uri(ORDERS)]).await, mutual.client(vec![uri(ORDERS)]).await];
    for client in &mut clients {
        client.save_info(sample()).await.unwrap();
    }
    let issued = mutual.authority.client(vec![uri(ORDERS)]);
    let third = async {
        let channel = mutual.authority.connect(&mutual.gateway.addresses.server, Some(&issued)).await.ok()?;
        CertificateServiceClient::new(channel).save_info(sample()).await.ok()
    };
    assert!(third.await.is_none(), "the connection is closed, at once or at its first call");
    mutual.client(vec![dns("b.example")]).await.save_info(sample()).await.unwrap();
    let refused = "scm_gateway_connections_refused_total{reason=\"limit_per_caller\"";
    assert!(mutual.gateway.metric::<u64>(refused).await >= 1);
    assert_eq!(mutual.emulator.attempts(), 3);
}

#[tokio::test]
async fn path_variants_do_not_bypass_authorization() {
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
async fn unlisted_caller_is_rejected_before_its_message() {
    let mutual = Mutual::start(&[(ORDERS, "SaveInfo", "*")]).await;
    let mut unlisted = mutual.client(vec![dns("x.example")]).await;
    // Larger than any window, so the message is never sent completely.
    let request = SaveInfoRequest { cert_id: "x".repeat(16 * 1024 * 1024), ..sample() };
    assert_not_allowed(&unlisted.save_info(request).await.unwrap_err());
    assert_eq!(mutual.emulator.attempts(), 0);
}
