//! WatchCertificate over real sockets. The hub's own tests are in `src/watch/tests.rs`.

use std::time::Duration;

use prost::Message as _;
use scm_emulator::{Emulator, Options, Reply, SAMPLE_PROJECT, Step};
use scm_gateway::{
    grpc::service::certificate_service_client::CertificateServiceClient,
    proto::{WatchCertificateRequest, WatchCertificateResponse},
};
use serde_json::json;
use tokio::{task::JoinHandle, time::timeout};
use tonic::{Code, Request, Status, Streaming, transport::Channel};

use crate::harness::{
    CERT, Gateway, assert_status, emulator, fields, framed,
    raw::{DATA, END_HEADERS, END_STREAM, HEADERS, Received, call_of, frame, preface, send_until},
    seen,
};

mod ends;
mod limits;
mod records;

const ORDERS: &str = "spiffe://example.org/ns/web/sa/orders";

/// Polls come as often as the configuration allows.
const FAST: (&str, &str) = ("SCM_GATEWAY__WATCH__INTERVAL", "100ms");

/// A failed attempt is a failed poll.
const ONE_ATTEMPT: (&str, &str) = ("SCM_GATEWAY__UPSTREAM__ATTEMPTS", "1");

const TIMEOUT: Duration = Duration::from_secs(30);

/// Returns SCM's answer about a certificate in this status.
fn show(status: &str) -> Step {
    Step::Reply(Reply::json(200, &json!({"id": CERT, "status": status}).to_string()))
}

fn failure(status: u16, code: &str) -> Step {
    Step::Reply(Reply::json(status, &json!({"error_code": code, "error_msg": "text"}).to_string()))
}

/// Starts an emulator that applies this step to each request for the certificate without another one.
async fn emulator_with(step: Step) -> Emulator {
    Emulator::start(Options { steps: vec![(CERT.to_owned(), step)], ..Options::default() }).await.unwrap()
}

fn request() -> WatchCertificateRequest {
    WatchCertificateRequest { project_id: String::new(), cert_id: CERT.into() }
}

/// Returns a request that a sidecar forwards for this caller.
fn request_of(caller: &str) -> Request<WatchCertificateRequest> {
    let mut request = Request::new(request());
    request.metadata_mut().insert("x-forwarded-client-cert", format!("URI={caller}").parse().unwrap());
    request
}

type Watch = Streaming<WatchCertificateResponse>;

async fn watch(client: &CertificateServiceClient<Channel>) -> Watch {
    client.clone().watch_certificate(request()).await.unwrap().into_inner()
}

/// Returns the status of the certificate in the next response, or `None` at the end.
async fn next(watch: &mut Watch) -> Result<Option<String>, Status> {
    let message = timeout(TIMEOUT, watch.message()).await.expect("a response in time")?;
    Ok(message.map(|response| response.certificate.unwrap().status))
}

/// Returns the statuses of all responses, and the error at the end.
async fn rest(watch: &mut Watch) -> (Vec<String>, Option<Status>) {
    let mut statuses = Vec::new();
    loop {
        match next(watch).await {
            Ok(Some(status)) => statuses.push(status),
            Ok(None) => return (statuses, None),
            Err(error) => return (statuses, Some(error)),
        }
    }
}

/// Returns the start of the series that counts polls with this outcome.
fn polls_ended(outcome: &str) -> String {
    format!("scm_gateway_watches_polls_total{{outcome=\"{outcome}\"")
}

#[tokio::test]
async fn changes_are_sent_until_a_final_status() {
    let emulator = emulator().await;
    let proof = json!({"id": CERT, "status": "CHECKING_DOMAIN", "authentification": [{"record_name": "_dnsauth"}]});
    emulator.scripts([
        show("PAID"),
        show("PAID"),
        show("CHECKING_DOMAIN"),
        Step::Reply(Reply::json(200, &proof.to_string())),
        show("ISSUED"),
    ]);
    let gateway = Gateway::with(&emulator, &[FAST]).await;
    let (statuses, error) = rest(&mut watch(&gateway.client).await).await;
    assert_eq!(statuses, ["PAID", "CHECKING_DOMAIN", "CHECKING_DOMAIN", "ISSUED"]);
    assert!(error.is_none(), "{error:?}");
    let sent = emulator.journal();
    assert_eq!(sent.len(), 5);
    let line = format!("/v3/scm/certificates/{CERT}");
    assert!(sent.iter().all(|sent| (sent.method.as_str(), sent.target.as_str()) == ("GET", line.as_str())));
}

#[tokio::test]
async fn a_second_watcher_needs_no_poll() {
    let emulator = emulator_with(show("PAID")).await;
    let gateway = Gateway::of(&emulator).await; // a poll every 30 s
    for _ in 0..3 {
        assert_eq!(next(&mut watch(&gateway.client).await).await.unwrap().as_deref(), Some("PAID"));
    }
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(watch(&gateway.client).await);
        assert_eq!(next(open.last_mut().unwrap()).await.unwrap().as_deref(), Some("PAID"));
    }
    assert!((1..=4).contains(&emulator.attempts()), "{}", emulator.attempts());
    let before = emulator.attempts();
    open.push(watch(&gateway.client).await);
    assert_eq!(next(open.last_mut().unwrap()).await.unwrap().as_deref(), Some("PAID"));
    assert_eq!(emulator.attempts(), before);
}

#[tokio::test]
async fn errors_that_may_pass_do_not_end_a_watch() {
    for step in [
        failure(503, "SCM.9999"),
        failure(504, "SCM.9999"),
        failure(500, "SCM.9999"),
        failure(429, "APIG.0308"),
        Step::Close,
    ] {
        let emulator = emulator_with(show("ISSUED")).await;
        emulator.script(step.clone());
        let gateway = Gateway::with(&emulator, &[FAST, ONE_ATTEMPT]).await;
        let (statuses, error) = rest(&mut watch(&gateway.client).await).await;
        assert_eq!((statuses, error.is_none()), (vec!["ISSUED".to_owned()], true), "{step:?}");
        assert_eq!(emulator.attempts(), 2, "{step:?}");
        // After a 429, polls are also rejected without a request until the cooldown is over.
        assert!(gateway.metric::<u64>(&polls_ended("failed")).await >= 1, "{step:?}");
    }
}

#[tokio::test]
async fn other_errors_end_all_watches_with_their_status() {
    for (step, code, reason, upstream_code) in [
        (failure(400, "SCM.0008"), Code::NotFound, "CERTIFICATE_NOT_FOUND", Some("SCM.0008")),
        (failure(400, "SCM.0003"), Code::PermissionDenied, "CERTIFICATE_NOT_OWNED", Some("SCM.0003")),
        (failure(403, "SCM.0002"), Code::FailedPrecondition, "UPSTREAM_ACCOUNT", Some("SCM.0002")),
        (failure(404, "APIG.0101"), Code::Internal, "UPSTREAM_CONFIGURATION", Some("APIG.0101")),
        (Step::Reply(Reply::json(200, "no JSON")), Code::Internal, "UPSTREAM_MALFORMED", None),
    ] {
        let emulator = emulator_with(step).await;
        emulator.script(show("PAID"));
        let gateway = Gateway::with(&emulator, &[FAST]).await;
        let (mut first, mut second) = (watch(&gateway.client).await, watch(&gateway.client).await);
        for watch in [&mut first, &mut second] {
            let (_, error) = rest(watch).await;
            let error = error.expect("an error ends the watch");
            assert_status(&error, code, reason, Some(1));
            assert_eq!(seen(&error).metadata.get("upstream_code").map(String::as_str), upstream_code);
        }
    }
}

#[tokio::test]
async fn polls_are_retried_like_calls_of_show_certificate() {
    let emulator = emulator_with(show("ISSUED")).await;
    emulator.scripts([Step::Close, failure(503, "SCM.9999")]);
    let gateway = Gateway::of(&emulator).await;
    assert_eq!(rest(&mut watch(&gateway.client).await).await.0, ["ISSUED"]);
    assert_eq!(emulator.attempts(), 3);
}

/// Opens a watch whose peer has a closed window.
fn unread_watch(gateway: &Gateway) -> JoinHandle<Received> {
    let headers = call_of("/huaweicloud.scm.v1.CertificateService/WatchCertificate");
    let message = framed(0, &request().encode_to_vec());
    let no_window = [0, 4, 0, 0, 0, 0];
    let call =
        [preface(&no_window), frame(HEADERS, END_HEADERS, 1, &headers), frame(DATA, END_STREAM, 1, &message)].concat();
    let address = gateway.addresses.server.clone();
    tokio::spawn(async move { send_until(&address, &call, |_| false).await })
}

#[tokio::test]
async fn a_success_without_a_status_is_no_change() {
    let emulator = emulator_with(show("ISSUED")).await;
    emulator.scripts([show("PAID"), Step::Reply(Reply::json(200, "{}"))]);
    let gateway = Gateway::with(&emulator, &[FAST]).await;
    assert_eq!(rest(&mut watch(&gateway.client).await).await.0, ["PAID", "ISSUED"]);
    assert_eq!(gateway.metric::<usize>(&polls_ended("failed")).await, 1);
}

/// Returns the variables of a gateway behind a sidecar with these callers, all with the same methods and projects.
fn callers(names: &[&str], methods: &str, projects: &str) -> Vec<(String, String)> {
    let entries = names.iter().enumerate().flat_map(|(index, name)| {
        [("IDENTITY", *name), ("METHODS", methods), ("PROJECTS", projects)]
            .map(|(key, value)| (format!("SCM_GATEWAY__CALLERS__{index}__{key}"), value.to_owned()))
    });
    entries.chain([("SCM_GATEWAY__SERVER__TRUST_XFCC".to_owned(), "true".to_owned())]).collect()
}

fn borrowed(variables: &[(String, String)]) -> Vec<(&str, &str)> {
    variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[tokio::test]
async fn a_watcher_needs_the_grant_for_watching_only() {
    let denied = Some((Code::PermissionDenied, "CALLER_NOT_ALLOWED"));
    for (methods, projects, enabled, expected) in [
        ("WatchCertificate", "*", "*", None),
        ("read", SAMPLE_PROJECT, "*", None),
        ("*", "*", "WatchCertificate", None),
        ("ShowCertificate", "*", "*", denied),
        ("*", "*", "ShowCertificate", Some((Code::Unimplemented, "METHOD_DISABLED"))),
    ] {
        let emulator = emulator_with(show("ISSUED")).await;
        let listed = callers(&[ORDERS], methods, projects);
        let variables = [borrowed(&listed), vec![("SCM_GATEWAY__SERVER__METHODS", enabled)]].concat();
        let gateway = Gateway::with(&emulator, &variables).await;
        let result = gateway.client.clone().watch_certificate(request_of(ORDERS)).await;
        match expected {
            None => assert_eq!(rest(&mut result.unwrap().into_inner()).await.0, ["ISSUED"], "{methods} {projects}"),
            Some((code, reason)) => assert_status(&result.unwrap_err(), code, reason, None),
        }
        assert_eq!(emulator.attempts(), usize::from(expected.is_none()), "{methods} {projects}");
    }
}

#[tokio::test]
async fn invalid_requests_are_rejected_before_a_poll() {
    let emulator = emulator_with(show("PAID")).await;
    let gateway = Gateway::of(&emulator).await;
    let call = async |request| gateway.client.clone().watch_certificate(request).await.unwrap_err();
    for cert_id in ["", "a b", "../x"] {
        let status = call(WatchCertificateRequest { cert_id: cert_id.into(), ..request() }).await;
        assert_status(&status, Code::InvalidArgument, "INVALID_REQUEST", None);
        assert_eq!(fields(&status), ["cert_id"]);
    }
    let status = call(WatchCertificateRequest { project_id: "other".into(), ..request() }).await;
    assert_status(&status, Code::PermissionDenied, "CALLER_NOT_ALLOWED", None);
    assert_eq!(emulator.attempts(), 0);
}
