//! No secret or personal data leaks by log, span, metric or status: the test plants markers and searches all of them.

use opentelemetry_proto::tonic::trace::v1::Span;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, ReflectMessage as _, Value};
use scm_emulator::{Reply, Step};
use scm_gateway::proto::{CertificateInfo, SaveInfoRequest};
use tonic::Status;

use crate::{
    harness::{
        channel, client, emulator,
        otlp_sink::Sink,
        process::Process,
        rpc::{self, Rpc, Rules, is_secret, rpcs},
        sample, sample_info,
        samples::{self, Filling, is_special},
    },
    tolerance::values,
};

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
    let sink = Sink::http().await;
    let variables = [&sink.variables()[..], &[("RUST_LOG", "trace")]].concat();
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
    let pages = pages(&process).await;
    process.signal("TERM");
    let (code, log) = process.end().await;
    assert_eq!(code, Some(0));

    assert!(log.len() > 8, "the log was written: {log:?}");
    let spans: Vec<Span> = sink.spans();
    assert_eq!(spans.len(), 8 + 8, "a span per call and per attempt");
    assert_has_none("pages", &pages, MARKERS.into_iter());
    assert_clean(&log, metrics, &spans, &statuses, MARKERS.into_iter().chain([emulator.endpoint().as_str()]));
}

/// Asserts that no output has any marker.
fn assert_clean<'a>(
    log: &[String],
    metrics: String,
    spans: &[Span],
    statuses: &[Status],
    markers: impl Iterator<Item = &'a str> + Clone,
) {
    let written = [
        ("log", log.join("\n")),
        ("metrics", metrics),
        ("spans", format!("{spans:?}")),
        ("statuses", statuses.iter().map(|s| format!("{s:?} {}", String::from_utf8_lossy(s.details()))).collect()),
    ];
    for (output, text) in &written {
        assert_has_none(output, text, markers.clone());
    }
}

fn assert_has_none<'a>(output: &str, text: &str, markers: impl Iterator<Item = &'a str>) {
    for marker in markers {
        let found = text.lines().find(|line| line.contains(marker));
        assert!(found.is_none(), "{marker} in the {output}: {found:?}");
    }
}

/// Returns the pages of the admin port.
async fn pages(process: &Process) -> String {
    let mut pages = String::new();
    for path in ["/", "/status", "/config"] {
        let answer = reqwest::get(format!("http://{}{path}", process.admin)).await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        pages += &answer.text().await.unwrap();
    }
    pages
}

/// Returns a value with a marker for a text that may have any characters.
fn marked(field: &FieldDescriptor, ending: &str) -> Option<Value> {
    let rules = Rules::of(field);
    let is_free = rules.words.is_empty() && !rules.id && !is_special(field) && field.kind() == Kind::String;
    let text: String = format!("p1anted{ending}{}", field.name());
    let text: String = text.chars().take(rules.max_len.or(rules.max_bytes).unwrap_or(100)).collect();
    let value = if field.is_list() { Value::List(vec![Value::String(text)]) } else { Value::String(text) };
    is_free.then_some(value)
}

/// Plants a marker in each text of a message that may have any characters. Returns the number of markers.
fn plant(message: &mut DynamicMessage, in_path: &[&str], ending: &str) -> usize {
    let mut planted = 0;
    for field in message.descriptor().fields().filter(|field| !in_path.contains(&field.name())) {
        if let Some(value) = marked(&field, ending) {
            message.set_field(&field, value);
            planted += 1;
        }
        match message.get_field_mut(&field) {
            Value::Message(inner) => planted += plant(inner, &[], ending),
            Value::List(entries) => {
                let inner = entries.iter_mut().filter_map(Value::as_message_mut);
                planted += inner.map(|inner| plant(inner, &[], ending)).sum::<usize>();
            }
            _ => {}
        }
    }
    planted
}

fn request(rpc: &Rpc, ending: &str) -> (DynamicMessage, usize) {
    let mut request = samples::request(rpc, Filling::All);
    let planted = plant(&mut request, &rpc.variables(), ending);
    (request, planted)
}

/// Every text of every request and response has a marker, and every line of a private key is one.
#[tokio::test]
async fn markers_in_every_message_do_not_leak() {
    let emulator = emulator().await;
    let sink = Sink::http().await;
    let (endpoint, methods) = (format!("http://{}", sink.address), rpc::names());
    let variables = [
        ("RUST_LOG", "trace"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_METRICS_EXPORTER", "none"),
        ("SCM_GATEWAY__SERVER__METHODS", &methods),
    ];
    let process = Process::start(&emulator.endpoint(), &variables).await;
    let channel = channel(&process.address).await;
    let pems = samples::pems();
    let secrets: Vec<_> = pems.private_key.lines().filter(|line| !line.starts_with("-----")).collect();
    assert!(secrets.len() > 1);
    let (mut statuses, mut calls, mut attempts) = (Vec::new(), 0, 0);
    for rpc in rpcs() {
        let status = rpc.success_statuses[0];
        let (good, _) = request(&rpc, "");
        let mut reply = values::sample(&rpc.reply_object(), &|field| match is_secret(field) {
            true => pems.private_key.clone(),
            false => format!("p1anted {}", field.name()),
        });
        let success = reply.to_string();
        // The last key cannot be read, so that all others are read before.
        let last = rpc.reply_object().fields().last().map(|field| rpc::json_key(&field));
        last.into_iter().for_each(|key| reply[key] = serde_json::json!(["p1anted", 1.5]));
        let error = r#"{"error_code":"p1anted code","error_msg":"p1anted","request_id":"p1anted id"}"#;
        emulator.scripts([
            Step::Reply(Reply::json(status, &success)),
            Step::Reply(Reply::json(status, &reply.to_string())),
            Step::Reply(Reply::json(status, &format!("{success}p1anted"))),
            Step::Reply(Reply::json(500, error)),
            Step::Reply(Reply::json(400, &success)),
        ]);
        rpc::call(channel.clone(), &rpc, good.clone())
            .await
            .unwrap_or_else(|status| panic!("{}: {status:?}", rpc.name()));
        for _ in 0..4 {
            statuses.extend(rpc::call(channel.clone(), &rpc, good.clone()).await.err());
        }
        (calls, attempts) = (calls + 5, attempts + 5);
        let (bad, planted) = request(&rpc, "\u{7}");
        if planted > 0 {
            statuses.push(rpc::call(channel.clone(), &rpc, bad).await.unwrap_err());
            calls += 1;
        }
    }
    assert_eq!((emulator.steps_left(), emulator.rejections().len()), (0, 0));

    let metrics = process.metrics().await;
    let pages = pages(&process).await;
    process.signal("TERM");
    let (code, log) = process.end().await;
    assert_eq!(code, Some(0));

    let spans = sink.spans();
    assert_eq!(spans.len(), calls + attempts, "a span per call and per attempt");
    let certificate = pems.certificate.lines().filter(|line| !line.starts_with("-----"));
    let markers = MARKERS.into_iter().chain(secrets).chain(certificate).chain([samples::DOMAIN]);
    assert_has_none("pages", &pages, markers.clone());
    assert_clean(&log, metrics, &spans, &statuses, markers);
}
