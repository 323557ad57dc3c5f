//! What the log, spans and metrics say of watches.

use std::time::Duration;

use scm_emulator::{Reply, SAMPLE_PROJECT, Step};
use serde_json::{Value, json};

use super::{FAST, ORDERS, borrowed, callers, emulator_with, next, request_of, rest, show, watch};
use crate::harness::{CERT, client, otlp_sink::Sink, process::Process};

#[tokio::test]
async fn the_audit_line_is_written_at_the_end() {
    let emulator = emulator_with(show("PAID")).await;
    let listed = callers(&[ORDERS], "WatchCertificate", "*");
    let variables = [borrowed(&listed), vec![FAST, ("SCM_GATEWAY__SERVER__MAX_CONNECTION_AGE", "1h")]].concat();
    let mut process = Process::start(&emulator.endpoint(), &variables).await;
    let client = client(&process.address).await;
    let open = async |timeout: Option<Duration>| {
        let mut request = request_of(ORDERS);
        timeout.into_iter().for_each(|timeout| request.set_timeout(timeout));
        let mut watch = client.clone().watch_certificate(request).await.unwrap().into_inner();
        next(&mut watch).await.unwrap();
        watch
    };
    let assert_line = |line: &Value, status: &str, reason: Option<&str>| {
        for (field, value) in [
            ("target", Some("scm_gateway::audit")),
            ("level", Some("INFO")),
            ("identity", Some(ORDERS)),
            ("rpc", Some("huaweicloud.scm.v1.CertificateService/WatchCertificate")),
            ("project_id", Some(SAMPLE_PROJECT)),
            ("cert_id", Some(CERT)),
            ("status", Some(status)),
            ("reason", reason),
        ] {
            assert_eq!(line.get(field).and_then(Value::as_str), value, "{field} of {line}");
        }
        line["duration_ms"].as_f64().unwrap()
    };

    drop(open(None).await);
    assert_line(&process.line("call cancelled").await, "CANCELLED", None);

    let mut until_deadline = open(Some(Duration::from_millis(300))).await;
    until_deadline.message().await.unwrap_err();
    let duration = assert_line(&process.line("stream ended").await, "DEADLINE_EXCEEDED", Some("DEADLINE"));
    assert!(duration >= 250.0, "{duration}");

    let mut until_found = open(None).await;
    emulator.script(Step::Reply(Reply::json(400, r#"{"error_code":"SCM.0008"}"#).header("X-Request-Id", "r-1")));
    until_found.message().await.unwrap_err();
    let line = process.line("call rejected").await;
    assert_line(&line, "NOT_FOUND", Some("CERTIFICATE_NOT_FOUND"));
    assert_eq!((&line["upstream_code"], &line["attempts"]), (&"SCM.0008".into(), &1.into()));
    assert_eq!(line["upstream_request_id"], "r-1");

    let mut until_issued = open(None).await;
    emulator.script(show("ISSUED"));
    assert_eq!(rest(&mut until_issued).await.0, ["ISSUED"]);
    assert_line(&process.line("call succeeded").await, "OK", None);

    let mut until_shutdown = open(None).await;
    process.signal("TERM");
    until_shutdown.message().await.unwrap_err();
    assert_line(&process.line("stream ended").await, "UNAVAILABLE", Some("SHUTTING_DOWN"));

    let (code, log) = process.end().await;
    assert_eq!(code, Some(0));
    assert_eq!(log.iter().filter(|line| line.contains("scm_gateway::audit")).count(), 5, "one line a call: {log:?}");
}

#[tokio::test]
async fn personal_data_does_not_leak() {
    let certificate = json!({
        "id": CERT, "name": "p1anted", "status": "PAID", "domain": "p1anted.example", "applicant_name": "p1anted",
        "authentification": [{"record_name": "p1anted", "record_value": "p1anted"}],
    });
    let emulator = emulator_with(Step::Reply(Reply::json(200, &certificate.to_string()))).await;
    let sink = Sink::http().await;
    let variables = [&sink.variables()[..], &[FAST, ("RUST_LOG", "trace")]].concat();
    let process = Process::start(&emulator.endpoint(), &variables).await;
    let client = client(&process.address).await;
    let mut watch = watch(&client).await;
    let response = watch.message().await.unwrap().unwrap();
    assert_eq!(response.certificate.unwrap().name, "p1anted", "the caller gets it");
    emulator.script(Step::Reply(Reply::json(400, r#"{"error_code":"SCM.0003","error_msg":"p1anted"}"#)));
    let status = watch.message().await.unwrap_err();
    let metrics = process.metrics().await;
    process.signal("TERM");
    let (code, log) = process.end().await;
    assert_eq!(code, Some(0));
    let spans = sink.spans();
    assert!(spans.iter().any(|span| span.name == "watch poll"), "{spans:?}");
    let written = [
        ("log", log.join("\n")),
        ("metrics", metrics),
        ("spans", format!("{spans:?}")),
        ("status", format!("{status:?} {}", String::from_utf8_lossy(status.details()))),
    ];
    for (output, text) in &written {
        assert!(!text.contains("p1anted") && !text.contains("/certificates/scs"), "the {output}: {text}");
    }
}
