//! Dry runs: every RPC is authorized and validated, and nothing is sent.

use prost_reflect::{DynamicMessage, Kind, MethodDescriptor, Value};
use scm_emulator::{Emulator, Reply, SAMPLE_PROJECT, Step};
use scm_gateway::proto::WatchCertificateRequest;
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;

use crate::harness::{
    CERT, Gateway, METADATA_ENDPOINT, assert_status, client, emulator, fields, in_flight, metadata_service,
    otlp_sink::{Sink, attribute},
    process::Process,
    rpc::{methods, rpcs},
    sample,
    samples::{self, Filling},
    until,
};

const KEY: &str = "x-scm-gateway-dry-run";

/// Text that must not appear in a status.
const MARKER: &str = "p1anted";

/// A caller of every method, two callers of one method, and one that is not listed.
const ALL: &str = "spiffe://example.org/all";
const SAVER: &str = "spiffe://example.org/saver";
const READER: &str = "spiffe://example.org/reader";
const UNLISTED: &str = "spiffe://example.org/unlisted";

fn names() -> String {
    methods().iter().map(|method| method.name().to_owned()).collect::<Vec<_>>().join(",")
}

/// Starts a gateway that serves these methods, with all callers.
async fn start(emulator: &Emulator, served: &str) -> Gateway {
    let names = names();
    let callers = [(ALL, names.as_str()), (SAVER, "SaveInfo"), (READER, "ReadInfo")];
    let mut variables = vec![
        ("SCM_GATEWAY__SERVER__METHODS".to_owned(), served.to_owned()),
        ("SCM_GATEWAY__SERVER__TRUST_XFCC".to_owned(), "true".to_owned()),
    ];
    for (index, (identity, methods)) in callers.into_iter().enumerate() {
        let values = [("IDENTITY", identity), ("METHODS", methods), ("PROJECTS", SAMPLE_PROJECT)];
        variables
            .extend(values.map(|(key, value)| (format!("SCM_GATEWAY__CALLERS__{index}__{key}"), value.to_owned())));
    }
    let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    Gateway::with(emulator, &variables).await
}

/// Returns a request with these values of the metadata.
fn with_values<T>(message: T, values: &[&str]) -> Request<T> {
    let mut request = Request::new(message);
    values.iter().for_each(|value| _ = request.metadata_mut().append(KEY, value.parse().unwrap()));
    request
}

fn dry<T>(message: T) -> Request<T> {
    with_values(message, &["true"])
}

async fn call(
    gateway: &Gateway,
    method: &MethodDescriptor,
    caller: &str,
    mut request: Request<DynamicMessage>,
) -> Result<Response<Vec<DynamicMessage>>, Status> {
    request.metadata_mut().insert("x-forwarded-client-cert", format!("URI={caller}").parse().unwrap());
    gateway.responses(method, request).await
}

fn valid(method: &MethodDescriptor) -> DynamicMessage {
    samples::message(&method.input(), Filling::All)
}

/// Returns an invalid request, if the RPC has fields with rules.
fn invalid(method: &MethodDescriptor) -> Option<DynamicMessage> {
    let fields: Vec<_> = method.input().fields().filter(|field| field.name() != "project_id").collect();
    let Some(field) = fields.iter().find(|field| matches!(field.kind(), Kind::String)) else {
        return (!fields.is_empty()).then(|| DynamicMessage::new(method.input())); // a required list
    };
    let mut request = valid(method);
    let text = Value::String(format!("{MARKER}\0"));
    request.set_field(field, if field.is_list() { Value::List(vec![text]) } else { text });
    Some(request)
}

fn for_project(mut request: DynamicMessage, id: &str) -> DynamicMessage {
    request.set_field_by_name("project_id", Value::String(id.to_owned()));
    request
}

/// Asserts that a dry run succeeded: with the metadata that says so, and without content.
fn assert_dry(method: &MethodDescriptor, response: &Response<Vec<DynamicMessage>>) {
    let is_stream = method.is_server_streaming();
    let expected = if is_stream { vec![] } else { vec![DynamicMessage::new(method.output())] };
    assert_eq!(response.get_ref(), &expected, "{}", method.name());
    assert_eq!(response.metadata().get(KEY).unwrap(), "true", "{}", method.name());
    assert!(!response.metadata().contains_key("x-upstream-request-id"));
}

#[tokio::test]
async fn a_valid_dry_run_of_any_rpc_sends_nothing() {
    let emulator = emulator().await;
    let gateway = start(&emulator, &names()).await;
    for method in methods() {
        for request in [valid(&method), for_project(valid(&method), SAMPLE_PROJECT)] {
            let response = call(&gateway, &method, ALL, dry(request)).await;
            assert_dry(&method, &response.unwrap_or_else(|status| panic!("{}: {status:?}", method.name())));
        }
    }
    assert_eq!((emulator.attempts(), methods().len()), (0, rpcs().len() + 1));
}

#[tokio::test]
async fn a_rejected_dry_run_has_the_error_of_the_call() {
    let emulator = emulator().await;
    let (all, one) = (start(&emulator, &names()).await, start(&emulator, "EnableNotification").await);
    let mut without_rules = Vec::new();
    for method in methods() {
        let other = if method.name() == "ReadInfo" { SAVER } else { READER };
        let broken = invalid(&method);
        if broken.is_none() {
            without_rules.push(method.name().to_owned());
        }
        let of_other = for_project(valid(&method), "unknown");
        let denied = (Code::PermissionDenied, "CALLER_NOT_ALLOWED");
        let mut table = vec![
            (&all, READER, for_project(valid(&method), "unknown"), denied),
            (&all, other, valid(&method), denied),
            (&all, other, of_other.clone(), denied),
            (&all, ALL, of_other, denied),
            (&all, UNLISTED, valid(&method), denied),
        ];
        table.extend(broken.clone().map(|broken| (&all, ALL, broken, (Code::InvalidArgument, "INVALID_REQUEST"))));
        table.extend(broken.map(|broken| (&all, other, broken, denied)));
        if method.name() != "EnableNotification" {
            table.push((&one, ALL, valid(&method), (Code::Unimplemented, "METHOD_DISABLED")));
        }
        for (gateway, caller, request, (code, reason)) in table {
            let real = call(gateway, &method, caller, Request::new(request.clone())).await.unwrap_err();
            let dry = call(gateway, &method, caller, dry(request)).await.unwrap_err();
            assert_status(&dry, code, reason, None);
            let seen = |status: &Status| (status.code(), status.message().to_owned(), status.details().to_vec());
            assert_eq!(seen(&dry), seen(&real), "{} by {caller}", method.name());
        }
    }
    assert_eq!(without_rules, ["ListProductTypes", "ListAllTags"]);
    assert_eq!(emulator.attempts(), 0);
}

#[tokio::test]
async fn a_value_that_is_not_true_or_false_is_rejected() {
    let emulator = emulator().await;
    let gateway = start(&emulator, &names()).await;
    let values: [&[&str]; 7] =
        [&["1"], &["True"], &[""], &["true,true"], &["true", "false"], &["false", "true"], &[MARKER]];
    for method in methods() {
        for values in values {
            let status = call(&gateway, &method, ALL, with_values(valid(&method), values)).await.unwrap_err();
            assert_status(&status, Code::InvalidArgument, "INVALID_REQUEST", None);
            assert_eq!(fields(&status), [KEY], "{} {values:?}", method.name());
            let message =
                format!("invalid request: {KEY}: must be true or false, in lower case and with the same value");
            assert!(status.message().starts_with(&message), "{status:?}");
            assert!(!format!("{:?}", status.get_error_details()).contains(MARKER));
        }
        let denied = call(&gateway, &method, UNLISTED, with_values(valid(&method), &["1"])).await.unwrap_err();
        assert_status(&denied, Code::PermissionDenied, "CALLER_NOT_ALLOWED", None);
    }
    assert_eq!(emulator.attempts(), 0);
}

#[tokio::test]
async fn false_is_an_ordinary_call() {
    let emulator = emulator().await;
    let gateway = start(&emulator, &names()).await;
    for rpc in rpcs() {
        let (status, body) = rpc.success();
        emulator.script(Step::Reply(Reply::json(status, &body)));
        let before = emulator.attempts();
        let request = with_values(samples::request(&rpc, Filling::All), &["false", "false"]);
        let response = call(&gateway, &rpc.method, ALL, request).await.unwrap();
        assert!(!response.metadata().contains_key(KEY), "{}", rpc.name());
        assert_eq!(emulator.attempts(), before + 1, "{}", rpc.name());
    }
    emulator.script(Step::Reply(Reply::json(200, &format!(r#"{{"id":"{CERT}","status":"ISSUED"}}"#))));
    let watch = methods().into_iter().find(|method| method.is_server_streaming()).unwrap();
    let response = call(&gateway, &watch, ALL, with_values(valid(&watch), &["false"])).await.unwrap();
    assert_eq!(response.get_ref().len(), 1);
}

/// Asserts that dry runs of a call and a watch succeed.
async fn assert_succeed(gateway: &Gateway) {
    let mut client = gateway.client.clone();
    client.save_info(dry(sample())).await.unwrap();
    let watch = WatchCertificateRequest { cert_id: CERT.into(), ..WatchCertificateRequest::default() };
    assert!(client.watch_certificate(dry(watch)).await.unwrap().into_inner().message().await.unwrap().is_none());
}

#[tokio::test]
async fn a_dry_run_needs_no_credentials() {
    let emulator = emulator().await;
    let service = metadata_service(&emulator.issuer()).await;
    service.pause();
    let gateway = Gateway::without_access_key(&emulator, &[(METADATA_ENDPOINT, &service.endpoint())]).await;
    assert_succeed(&gateway).await;
    assert_eq!(emulator.attempts(), 0);
}

#[tokio::test]
async fn a_dry_run_needs_no_permit() {
    let emulator = emulator().await;
    let variables = [("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", "1"), ("SCM_GATEWAY__WATCH__MAX", "1")];
    let gateway = Gateway::with(&emulator, &variables).await;
    let _first = in_flight(&emulator, Step::Hang, gateway.client.clone()).await;
    let status = gateway.save(sample()).await.unwrap_err();
    assert_status(&status, Code::ResourceExhausted, "OVERLOADED", None);
    let watch = WatchCertificateRequest { cert_id: CERT.into(), ..WatchCertificateRequest::default() };
    let _open = gateway.client.clone().watch_certificate(watch.clone()).await.unwrap();
    let status = gateway.client.clone().watch_certificate(watch).await.unwrap_err();
    assert_status(&status, Code::ResourceExhausted, "OVERLOADED", None);
    assert_succeed(&gateway).await;
}

#[tokio::test]
async fn a_dry_run_does_not_depend_on_the_circuit() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__UPSTREAM__ATTEMPTS", "1")]).await;
    emulator.scripts((0..7).map(|_| Step::Reply(Reply::json(503, "{}"))));
    for _ in 0..7 {
        gateway.save(sample()).await.unwrap_err();
    }
    assert_status(&gateway.save(sample()).await.unwrap_err(), Code::Unavailable, "CIRCUIT_OPEN", None);
    assert_succeed(&gateway).await;
    assert_eq!(emulator.attempts(), 7);
}

#[tokio::test]
async fn a_dry_run_is_visible_in_audit_line_and_span_and_not_counted() {
    let emulator = emulator().await;
    let sink = Sink::http().await;
    let variables = [&sink.variables()[..], &[("OTEL_BSP_SCHEDULE_DELAY", "10")]].concat();
    let mut process = Process::start(&emulator.endpoint(), &variables).await;
    let mut client = client(&process.address).await;
    let bad = scm_gateway::proto::SaveInfoRequest { cert_id: format!("{MARKER}/"), ..sample() };
    let watch = WatchCertificateRequest { cert_id: CERT.into(), ..WatchCertificateRequest::default() };

    client.save_info(dry(sample())).await.unwrap();
    let valid = process.line("call succeeded").await;
    client.save_info(dry(bad)).await.unwrap_err();
    let rejected = process.line("call rejected").await;
    client.watch_certificate(dry(watch)).await.unwrap().into_inner().message().await.unwrap();
    let watched = process.line("call succeeded").await;
    for (line, rpc, status) in
        [(valid, "SaveInfo", "OK"), (rejected, "SaveInfo", "INVALID_ARGUMENT"), (watched, "WatchCertificate", "OK")]
    {
        assert_eq!((&line["target"], &line["dry_run"]), (&"scm_gateway::audit".into(), &true.into()), "{line}");
        assert_eq!((&line["project_id"], &line["status"]), (&SAMPLE_PROJECT.into(), &status.into()), "{line}");
        assert!(line["rpc"].as_str().unwrap().ends_with(rpc), "{line}");
        assert!(["http_status", "upstream_request_id"].iter().all(|field| line.get(field).is_none()), "{line}");
    }
    let metrics = process.metrics().await;
    assert!(!metrics.contains("rpc_server_call_duration_seconds_count"), "{metrics}");
    assert!(!metrics.contains("http_client_request_duration_seconds_count"), "{metrics}");

    for values in [&["false"][..], &["1"], &[]] {
        let _ = client.save_info(with_values(sample(), values)).await;
        let line = process.line("call ").await;
        assert_eq!(line.get("dry_run"), None, "{line}");
    }
    let calls = || sink.spans().into_iter().filter(|span| attribute(span, "rpc.method").is_some()).collect::<Vec<_>>();
    until("the spans of six calls", || async { calls().len() == 6 }).await;
    let flags: Vec<_> = calls().iter().map(|span| attribute(span, "scm.dry_run")).collect();
    let flag = Some("BoolValue(true)".to_owned());
    assert_eq!(flags, [flag.clone(), flag.clone(), flag, None, None, None]);
}
