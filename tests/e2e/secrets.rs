//! No secret or personal data leaks by log, span, metric or status: the test plants markers and searches all of them.

use opentelemetry_proto::tonic::trace::v1::Span;
use scm_emulator::{Reply, Step};
use scm_gateway::proto::{CertificateInfo, SaveInfoRequest};

use crate::harness::{client, emulator, otlp_sink::Sink, process::Process, sample, sample_info};

/// Texts that must not appear in any output.
const MARKERS: [&str; 5] = [
    "p1anted",              // personal data and texts of SCM
    "EXAMPLEAK0000000000A", // the access key
    "EXAMPLESK/not+a=real", // the secret key
    "Signature=",           // a signature
    "/scm/cert/scs",        // a path with ids
];

#[tokio::test]
async fn planted_markers_do_not_leak() {
    let emulator = emulator().await;
    let sink = Sink::grpc().await;
    let endpoint = format!("http://{}", sink.address);
    let variables = [
        ("RUST_LOG", "trace"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_METRICS_EXPORTER", "none"),
    ];
    let process = Process::start(&emulator.endpoint(), &variables).await;
    let personal = |text: &str| CertificateInfo {
        applicant_name: "p1anted name".into(),
        applicant_phone: "p1anted 1".into(),
        applicant_email: "p1anted@x".into(),
        contact_name: Some(text.into()),
        ..sample_info()
    };
    let good = SaveInfoRequest { info: Some(personal("p1anted contact")), ..sample() };
    let bad = SaveInfoRequest { info: Some(personal("p1anted\u{7}")), cert_id: "p1anted!".into(), ..sample() };
    let echo =
        r#"{"error_code":"APIG.0301","error_msg":"p1anted POST|/v2/|EXAMPLEAK0000000000A","request_id":"p1anted id"}"#;
    emulator.scripts([
        Step::Serve,
        Step::Reply(Reply::json(401, echo).header("X-Request-Id", "p1anted header")),
        Step::Reply(Reply::json(200, "p1anted")),
        Step::Reply(Reply::json(400, r#"{"error_code":"p1anted code","error_msg":"p1anted"}"#)),
        Step::Raw(b"p1anted\r\n\r\n".to_vec()),
        Step::Close,
        Step::Close,
        Step::Close,
    ]);
    let mut client = client(&process.address).await;
    let mut statuses = Vec::new();
    client.save_info(good.clone()).await.unwrap();
    for _ in 0..5 {
        statuses.push(client.save_info(good.clone()).await.unwrap_err());
    }
    statuses.push(client.save_info(bad).await.unwrap_err());
    statuses.push(client.save_info(SaveInfoRequest { project_id: "p1anted".into(), ..good }).await.unwrap_err());

    let metrics = process.metrics().await;
    process.signal("TERM");
    let (code, log) = process.end().await;
    assert_eq!(code, Some(0));

    assert!(log.len() > 8, "the log was written: {log:?}");
    let spans: Vec<Span> = sink.spans();
    assert_eq!(spans.len(), 8 + 8, "a span per call and per attempt");
    let written = [
        ("log", log.join("\n")),
        ("metrics", metrics),
        ("spans", format!("{spans:?}")),
        ("statuses", statuses.iter().map(|s| format!("{s:?} {}", String::from_utf8_lossy(s.details()))).collect()),
    ];
    for (output, text) in &written {
        for marker in MARKERS.into_iter().chain([emulator.endpoint().as_str()]) {
            assert!(!text.contains(marker), "{marker} in the {output}: {text}");
        }
    }
}
