//! The audit line of each call: caller, method, certificate and outcome.

use scm_emulator::{Reply, SAMPLE_PROJECT, Step};
use scm_gateway::proto::SaveInfoRequest;
use tonic::Request;

use crate::harness::{CERT, client, emulator, in_flight, process::Process, read, sample};

const ORDERS: &str = "spiffe://example.org/ns/web/sa/orders";
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

async fn start(endpoint: &str) -> Process {
    let variables = [
        ("SCM_GATEWAY__SERVER__TRUST_XFCC", "true"),
        ("SCM_GATEWAY__CALLERS__0__IDENTITY", ORDERS),
        ("SCM_GATEWAY__CALLERS__0__METHODS", "SaveInfo,ReadInfo"),
        ("SCM_GATEWAY__CALLERS__0__PROJECTS", "*"),
    ];
    Process::start(endpoint, &variables).await
}

fn of_orders<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-forwarded-client-cert", format!("URI={ORDERS}").parse().unwrap());
    request.metadata_mut().insert("traceparent", TRACEPARENT.parse().unwrap());
    request
}

#[tokio::test]
async fn success_is_logged_with_caller_and_certificate() {
    let emulator = emulator().await;
    let mut process = start(&emulator.endpoint()).await;
    let mut client = client(&process.address).await;
    let reply = client.save_info(of_orders(sample())).await.unwrap();
    let request_id = reply.metadata().get("x-upstream-request-id").unwrap().to_str().unwrap().to_owned();
    let line = process.line("call succeeded").await;
    assert_eq!((&line["target"], &line["level"]), (&"scm_gateway::audit".into(), &"INFO".into()));
    for (field, value) in [
        ("identity", ORDERS),
        ("rpc", "huaweicloud.scm.v1.CertificateService/SaveInfo"),
        ("project_id", SAMPLE_PROJECT),
        ("cert_id", CERT),
        ("status", "OK"),
        ("upstream_request_id", &request_id),
        ("trace_id", "0af7651916cd43dd8448eb211c80319c"),
    ] {
        assert_eq!(line[field], value, "{field} of {line}");
    }
    assert!(line["duration_ms"].as_f64().unwrap() > 0.0);
    client.read_info(of_orders(read())).await.unwrap();
    let line = process.line("call succeeded").await;
    assert_eq!(line["rpc"], "huaweicloud.scm.v1.CertificateService/ReadInfo");
    process.signal("TERM");
    let (_, log) = process.end().await;
    assert_eq!(log.iter().filter(|line| line.contains("scm_gateway::audit")).count(), 2, "one line per call: {log:?}");
}

#[tokio::test]
async fn failure_is_logged_with_its_reason() {
    let emulator = emulator().await;
    let mut process = start(&emulator.endpoint()).await;
    let rejected =
        Reply::json(400, r#"{"error_code":"SCM.0010","error_msg":"p1anted"}"#).header("X-Request-Id", "id-1");
    emulator.script(Step::Reply(rejected));
    client(&process.address).await.save_info(of_orders(sample())).await.unwrap_err();
    let line = process.line("call rejected").await;
    for (field, value) in [
        ("identity", ORDERS),
        ("cert_id", CERT),
        ("project_id", SAMPLE_PROJECT),
        ("status", "FAILED_PRECONDITION"),
        ("reason", "CERTIFICATE_STATE"),
        ("upstream_code", "SCM.0010"),
        ("upstream_request_id", "id-1"),
    ] {
        assert_eq!(line[field], value, "{field} of {line}");
    }
}

#[tokio::test]
async fn the_cause_of_a_missing_identity_is_logged() {
    let emulator = emulator().await;
    let mut process = start(&emulator.endpoint()).await;
    let mut client = client(&process.address).await;
    for (header, cause) in [
        (None, "no x-forwarded-client-cert"),
        (Some("URI=x:a,By=x;URI=spiffe://example.org/b"), "several elements in x-forwarded-client-cert"),
        (Some("URI=x:a;b=c"), "malformed x-forwarded-client-cert"),
        (Some("URI=x:a;URI=x:b"), "several URI SANs in the client certificate"),
        (Some("Hash=00"), "no usable SAN in the client certificate"),
    ] {
        let mut request = Request::new(sample());
        if let Some(header) = header {
            request.metadata_mut().insert("x-forwarded-client-cert", header.parse().unwrap());
        }
        client.save_info(request).await.unwrap_err();
        let line = process.line("call rejected").await;
        assert_eq!((&line["reason"], &line["cause"]), (&"CALLER_UNAUTHENTICATED".into(), &cause.into()), "{line}");
        assert_eq!(line.get("identity"), None, "{line}");
    }
}

#[tokio::test]
async fn invalid_ids_are_not_logged() {
    let emulator = emulator().await;
    let mut process = start(&emulator.endpoint()).await;
    let mut client = client(&process.address).await;
    let request = SaveInfoRequest { project_id: "p1anted".into(), cert_id: "p1anted phone +86".into(), ..sample() };
    client.save_info(request).await.unwrap_err();
    let line = process.line("call rejected").await;
    assert_eq!((&line["status"], &line["reason"]), (&"UNAUTHENTICATED".into(), &"CALLER_UNAUTHENTICATED".into()));
    assert!(["identity", "project_id", "cert_id"].iter().all(|field| line.get(field).is_none()), "{line}");
    assert!(!line.to_string().contains("p1anted"), "{line}");
    assert_eq!(emulator.attempts(), 0);
}

#[tokio::test]
async fn malformed_metadata_is_not_a_server_error() {
    let emulator = emulator().await;
    let mut process = start(&emulator.endpoint()).await;
    let mut request = of_orders(sample());
    request.metadata_mut().insert("grpc-timeout", "soon".parse().unwrap());
    client(&process.address).await.save_info(request).await.unwrap_err();
    let line = process.line("call rejected").await;
    assert_eq!((&line["level"], &line["status"]), (&"INFO".into(), &"INTERNAL".into()));
    let metrics = process.metrics().await;
    let counted = metrics.lines().find(|line| line.starts_with("rpc_server_call_duration_seconds_count")).unwrap();
    assert!(counted.contains("\"INTERNAL\"") && !counted.contains("error_type"), "{counted}");
}

#[tokio::test]
async fn overloaded_call_is_logged_with_its_limit() {
    let emulator = emulator().await;
    let mut process = Process::start(&emulator.endpoint(), &[("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", "1")]).await;
    let mut client = client(&process.address).await;
    let _first = in_flight(&emulator, Step::Hang, client.clone()).await;
    client.save_info(sample()).await.unwrap_err();
    let line = process.line("call failed").await;
    assert_eq!((&line["reason"], &line["cause"]), (&"OVERLOADED".into(), &"max_in_flight".into()));
}
