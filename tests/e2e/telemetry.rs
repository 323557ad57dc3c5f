//! Traces as a collector receives them, and metrics of calls and the runtime.

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use scm_emulator::{Reply, Step};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};
use tonic::Request;

use crate::harness::{
    Gateway, client, emulator,
    folder::Folder,
    otlp_sink::{Sink, attribute, hex},
    pki::{Authority, mutual_tls},
    process::Process,
    sample, until,
};

/// The protocols, and whether each is gRPC.
const PROTOCOLS: [(&str, bool); 2] = [("grpc", true), ("http/protobuf", false)];

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

const EXPORTED: &str = "scm_gateway_telemetry_spans_total{state=\"exported\"";

fn traced() -> Request<scm_gateway::proto::SaveInfoRequest> {
    let mut request = Request::new(sample());
    request.metadata_mut().insert("traceparent", format!("00-{TRACE}-{PARENT}-01").parse().unwrap());
    request
}

fn by_kind(spans: &[Span], kind: SpanKind) -> &Span {
    spans.iter().find(|span| span.kind() == kind).unwrap()
}

fn assert_attributes(span: &Span, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(attribute(span, name).as_deref(), Some(*value), "{name} of {}", span.name);
    }
    assert_eq!(span.attributes.len(), expected.len(), "{:?}", span.attributes);
}

#[tokio::test]
async fn unlisted_caller_does_not_decide_sampling() {
    let emulator = emulator().await;
    let sink = Sink::http().await;
    let variables = [
        &sink.variables()[..],
        &[
            ("OTEL_TRACES_SAMPLER", "parentbased_always_off"),
            ("SCM_GATEWAY__SERVER__TRUST_XFCC", "true"),
            ("SCM_GATEWAY__CALLERS__0__IDENTITY", "orders.example"),
            ("SCM_GATEWAY__CALLERS__0__METHODS", "SaveInfo"),
            ("SCM_GATEWAY__CALLERS__0__PROJECTS", "*"),
        ],
    ]
    .concat();
    let mut gateway = Gateway::with(&emulator, &variables).await;
    let mut client = gateway.client.clone();
    let of = |name: &str| {
        let mut request = traced();
        request.metadata_mut().insert("x-forwarded-client-cert", format!("DNS={name}").parse().unwrap());
        request
    };
    client.save_info(of("unlisted.example")).await.unwrap_err();
    client.save_info(of("orders.example")).await.unwrap();
    gateway.stop();
    gateway.stopped().await;
    sink.trace(TRACE, 2).await;
    let codes: Vec<_> = sink.spans().iter().filter_map(|span| attribute(span, "rpc.response.status_code")).collect();
    assert_eq!(codes, ["OK"]);
}

#[tokio::test]
async fn call_and_attempt_are_spans_of_the_callers_trace() {
    for sink in [Sink::grpc().await, Sink::http().await] {
        let emulator = emulator().await;
        let mut gateway = Gateway::with(&emulator, &sink.variables()).await;
        let reply = gateway.client.clone().save_info(traced()).await.unwrap();
        let request_id = reply.metadata().get("x-upstream-request-id").unwrap().to_str().unwrap().to_owned();
        gateway.stop();
        gateway.stopped().await;

        let spans = sink.trace(TRACE, 2).await;
        assert_eq!(spans.len(), 2);
        assert_eq!(sink.service_name(), "scm-gateway");
        let server = by_kind(&spans, SpanKind::Server);
        let client = by_kind(&spans, SpanKind::Client);
        assert_eq!(
            (server.name.as_str(), hex(&server.parent_span_id).as_str()),
            ("huaweicloud.scm.v1.CertificateService/SaveInfo", PARENT)
        );
        assert_attributes(
            server,
            &[
                ("rpc.system.name", "grpc"),
                ("rpc.method", "huaweicloud.scm.v1.CertificateService/SaveInfo"),
                ("rpc.response.status_code", "OK"),
            ],
        );
        assert_eq!(client.name, "POST /v2/{project_id}/scm/cert/{cert_id}/save");
        assert_eq!(client.parent_span_id, server.span_id);
        let port = format!("int {}", emulator.address().port());
        assert_attributes(
            client,
            &[
                ("http.request.method", "POST"),
                ("http.response.status_code", "int 200"),
                ("server.address", "127.0.0.1"),
                ("server.port", &port),
                ("url.template", "/v2/{project_id}/scm/cert/{cert_id}/save"),
                ("scm.upstream_request_id", &request_id),
            ],
        );
        let sent = emulator.journal()[0].header("traceparent").unwrap().to_owned();
        assert_eq!(sent, format!("00-{TRACE}-{}-01", hex(&client.span_id)), "SCM continues the attempt's span");
    }
}

#[tokio::test]
async fn only_server_failures_are_error_spans() {
    let emulator = emulator().await;
    let sink = Sink::http().await;
    let gateway = Gateway::with(&emulator, &sink.variables()).await;
    for (status, code, trace) in
        [(400, "SCM.0008", "11111111111111111111111111111111"), (500, "SCM.0007", "22222222222222222222222222222222")]
    {
        emulator.script(Step::Reply(Reply::json(status, &format!(r#"{{"error_code":"{code}","error_msg":"x"}}"#))));
        let mut request = Request::new(sample());
        request.metadata_mut().insert("traceparent", format!("00-{trace}-{PARENT}-01").parse().unwrap());
        gateway.client.clone().save_info(request).await.unwrap_err();
    }
    let emulator_port = format!("int {}", emulator.address().port());
    let template = "/v2/{project_id}/scm/cert/{cert_id}/save";
    let mut gateway = gateway;
    gateway.stop();
    gateway.stopped().await;

    let spans = sink.trace("11111111111111111111111111111111", 2).await;
    let server = by_kind(&spans, SpanKind::Server);
    let client = by_kind(&spans, SpanKind::Client);
    assert_eq!(server.status.clone().unwrap_or_default().code(), StatusCode::Unset);
    assert_eq!(attribute(server, "rpc.response.status_code").unwrap(), "NOT_FOUND");
    assert_eq!(attribute(server, "scm.reason").unwrap(), "CERTIFICATE_NOT_FOUND");
    assert_eq!(attribute(server, "error.type"), None);
    assert_eq!(client.status.clone().unwrap().code(), StatusCode::Error);
    assert_attributes(
        client,
        &[
            ("http.request.method", "POST"),
            ("http.response.status_code", "int 400"),
            ("error.type", "400"),
            ("server.address", "127.0.0.1"),
            ("server.port", &emulator_port),
            ("url.template", template),
            ("scm.upstream_code", "SCM.0008"),
        ],
    );

    let spans = sink.trace("22222222222222222222222222222222", 2).await;
    let server = by_kind(&spans, SpanKind::Server);
    assert_eq!(server.status.clone().unwrap().code(), StatusCode::Error);
    assert_eq!(attribute(server, "error.type").unwrap(), "INTERNAL");
}

#[tokio::test]
async fn traces_are_exported_over_http() {
    let emulator = emulator().await;
    let sink = Sink::http().await;
    let mut gateway = Gateway::with(&emulator, &sink.variables()).await;
    gateway.client.clone().save_info(traced()).await.unwrap();
    gateway.stop();
    gateway.stopped().await;
    assert_eq!(sink.trace(TRACE, 2).await.len(), 2);
}

#[tokio::test]
async fn unsampled_traces_are_not_exported() {
    let emulator = emulator().await;
    let sink = Sink::grpc().await;
    let endpoint = format!("http://{}", sink.address);
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_TRACES_SAMPLER", "parentbased_always_off"),
    ];
    let mut gateway = Gateway::with(&emulator, &variables).await;
    gateway.save(sample()).await.unwrap();
    gateway.client.clone().save_info(traced()).await.unwrap();
    gateway.stop();
    gateway.stopped().await;
    assert_eq!(sink.trace(TRACE, 2).await.len(), 2);
    assert_eq!(sink.spans().len(), 2);
}

#[tokio::test]
async fn unreachable_collector_fails_no_call() {
    let emulator = emulator().await;
    let endpoint = "http://127.0.0.1:1";
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint), ("OTEL_METRICS_EXPORTER", "none")];
    let mut gateway = Gateway::with(&emulator, &variables).await;
    for _ in 0..3 {
        gateway.save(sample()).await.unwrap();
    }
    let (_, metrics) = gateway.admin("/metrics").await;
    assert!(
        metrics.lines().any(|line| line.starts_with("scm_gateway_telemetry_spans")
            && line.contains(r#"state="ended""#)
            && line.ends_with(" 6")),
        "{metrics}"
    );
    gateway.stop();
    gateway.stopped().await;
}

/// Accepts a connection and answers its first request.
async fn answer_one(listener: &TcpListener) -> TcpStream {
    let mut stream = BufReader::new(listener.accept().await.unwrap().0);
    let (mut line, mut length) = (String::new(), 0);
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).await.unwrap();
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    stream.read_exact(&mut vec![0; length]).await.unwrap();
    let mut stream = stream.into_inner();
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    stream
}

#[tokio::test]
async fn connection_that_the_collector_has_closed_is_not_used_again() {
    let emulator = emulator().await;
    for unsolicited in ["", "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"] {
        let collector = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", collector.local_addr().unwrap());
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_METRICS_EXPORTER", "none"),
            ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        ];
        let gateway = Gateway::with(&emulator, &variables).await;
        let exported = |calls: u64| {
            let gateway = &gateway;
            until("the export", move || async move { gateway.metric::<u64>(EXPORTED).await == 2 * calls })
        };
        gateway.save(sample()).await.unwrap();
        let mut first = answer_one(&collector).await;
        exported(1).await;
        first.write_all(unsolicited.as_bytes()).await.unwrap();
        first.shutdown().await.unwrap();
        gateway.save(sample()).await.unwrap();
        let _second = answer_one(&collector).await;
        exported(2).await;
        assert_eq!(first.read(&mut [0]).await.unwrap_or(0), 0, "bytes of an export after {unsolicited:?}");
    }
}

#[tokio::test]
async fn export_that_the_collector_rejects_for_now_is_retried() {
    let emulator = emulator().await;
    let sink = Sink::http().await;
    sink.reject_next();
    let gateway =
        Gateway::with(&emulator, &[&sink.variables()[..], &[("OTEL_BSP_SCHEDULE_DELAY", "10")]].concat()).await;
    gateway.client.clone().save_info(traced()).await.unwrap();
    assert_eq!(sink.trace(TRACE, 2).await.len(), 2);
    until("the export", || async { gateway.metric::<u64>(EXPORTED).await == 2 }).await;
}

#[tokio::test]
async fn redirect_of_the_collector_is_not_followed() {
    let emulator = emulator().await;
    let elsewhere = Sink::http().await;
    let collector = crate::harness::emulator().await;
    let location = format!("http://{}/v1/traces", elsewhere.address);
    collector.scripts((0..10).map(|_| Step::Reply(Reply::new(307).header("Location", &*location))));
    let endpoint = collector.endpoint();
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=p1anted"),
        ("OTEL_METRICS_EXPORTER", "none"),
    ];
    let mut gateway = Gateway::with(&emulator, &variables).await;
    gateway.save(sample()).await.unwrap();
    gateway.stop();
    gateway.stopped().await;
    assert!(collector.attempts() > 0);
    assert!(elsewhere.spans().is_empty());
}

/// Runs the binary with variables for one call.
async fn one_call(variables: &[(&str, &str)]) -> Vec<String> {
    let emulator = emulator().await;
    let metrics = ("OTEL_METRICS_EXPORTER", "none");
    let process = Process::start(&emulator.endpoint(), &[&[metrics], variables].concat()).await;
    client(&process.address).await.save_info(sample()).await.unwrap();
    process.signal("TERM");
    process.end().await.1
}

#[tokio::test]
async fn exports_are_compressed_and_use_the_certificates() {
    let (authority, other) = (Authority::new(), Authority::new());
    let folder = Folder::new();
    let server = authority.server();
    let client = authority.client(Vec::new());
    let ca = folder.file("ca.pem", &authority.pem);
    let other_ca = folder.file("other.pem", &other.pem);
    let certificate = folder.file("client.pem", &client.certificate);
    let key = folder.file("key.pem", &client.key);
    for (protocol, is_grpc) in PROTOCOLS {
        for (ca, has_identity, arrives) in [(&ca, true, true), (&ca, false, false), (&other_ca, true, false)] {
            let sink = Sink::start(is_grpc, Some(mutual_tls(&server, &authority.pem))).await;
            let endpoint = format!("https://localhost:{}", sink.address.port());
            let mut variables = vec![
                ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", ca),
            ];
            if has_identity {
                variables.push(("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", &certificate));
                variables.push(("OTEL_EXPORTER_OTLP_CLIENT_KEY", &key));
            }
            let log = one_call(&variables).await;
            let failed = log.iter().any(|line| line.contains("telemetry export failed"));
            assert_eq!(
                (sink.spans().len(), failed),
                if arrives { (2, false) } else { (0, true) },
                "{protocol} {log:?}"
            );
            if arrives {
                let encoding = if is_grpc { "grpc-encoding" } else { "content-encoding" };
                assert_eq!(sink.requests(1).await[0][encoding], "gzip");
            }
        }
    }
}

#[tokio::test]
async fn headers_are_sent_unless_a_warning_rejects_them() {
    const GENERAL: &str = "OTEL_EXPORTER_OTLP_HEADERS";
    const OWN: &str = "OTEL_EXPORTER_OTLP_TRACES_HEADERS";
    type Row<'a> = (&'a [(&'a str, &'a str)], &'a [(&'a str, &'a str)], Option<&'a str>);
    let table: [Row<'_>; 4] = [
        (&[(GENERAL, "api-key=p1anted%20key,x-b=c=d")], &[("api-key", "p1anted key"), ("x-b", "c=d")], None),
        (&[(GENERAL, "api-key=p1anted,broken")], &[], Some(GENERAL)),
        (&[(GENERAL, "x-b=1"), (OWN, "api-key=p1anted,x-b=%zz")], &[("x-b", "1")], Some(OWN)),
        (&[(GENERAL, "api-key=p1anted"), (OWN, "x-b=2")], &[("x-b", "2")], None),
    ];
    for (protocol, is_grpc) in PROTOCOLS {
        for (headers, expected, rejected) in table {
            let sink = Sink::start(is_grpc, None).await;
            let endpoint = format!("http://{}", sink.address);
            let target = [
                ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("RUST_LOG", "trace"),
            ];
            let log = one_call(&[&target, headers].concat()).await;
            let received = sink.requests(1).await.remove(0);
            let sent: Vec<_> = ["api-key", "x-b"]
                .into_iter()
                .filter_map(|name| Some((name, received.get(name)?.to_str().unwrap())))
                .collect();
            assert_eq!(sent, expected, "{protocol} {headers:?}");
            assert!(received["user-agent"].to_str().unwrap().starts_with("scm-gateway/"), "{received:?}");
            let warnings: Vec<_> = log.iter().filter(|line| line.contains("WARN")).collect();
            assert_eq!(warnings.len(), usize::from(rejected.is_some()), "{warnings:?}");
            assert!(rejected.is_none_or(|name| warnings[0].contains(&format!("{name}: "))), "{warnings:?}");
            assert!(!log.concat().contains("p1anted"), "{log:?}");
        }
    }
}

#[tokio::test]
async fn resource_attributes_are_decoded_or_all_discarded() {
    let emulator = emulator().await;
    for (attributes, decoded) in [("1st.key=a%2Cb%0A%00,key=%E4%BD%A0", true), ("1st.key=a,key", false), ("=x", false)]
    {
        let sink = Sink::http().await;
        let endpoint = format!("http://{}", sink.address);
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_METRICS_EXPORTER", "none"),
            ("OTEL_RESOURCE_ATTRIBUTES", attributes),
        ];
        let process = Process::start(&emulator.endpoint(), &variables).await;
        client(&process.address).await.save_info(sample()).await.unwrap();
        let metrics = process.metrics().await;
        process.signal("TERM");
        process.end().await;

        let line = metrics.lines().find(|line| line.starts_with("target_info{")).unwrap();
        assert!(line.contains(r#"service_name="scm-gateway""#), "{line}");
        assert_eq!(line.contains(r#"key="你""#) && line.contains(r#"key_1st_key="a,b  ""#), decoded, "{line}");
        assert!(decoded || !line.contains("key"), "{line}");
        let resource = sink.resource();
        let values = ["1st.key", "key", "service.name"].map(|key| resource.get(key).map(String::as_str));
        let expected = if decoded { [Some("a,b\n\0"), Some("你")] } else { [None, None] };
        assert_eq!(values, [expected[0], expected[1], Some("scm-gateway")]);
    }
}

#[tokio::test]
async fn spans_lost_to_a_slow_collector_are_logged() {
    const QUEUE: u64 = 4;
    let emulator = emulator().await;
    for (protocol, is_grpc) in PROTOCOLS {
        let sink = Sink::start(is_grpc, None).await;
        let endpoint = format!("http://{}", sink.address);
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "600000"),
            ("OTEL_METRICS_EXPORTER", "none"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", &QUEUE.to_string()),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1"),
        ];
        let mut process = Process::start(&emulator.endpoint(), &variables).await;
        let ended = |metrics: &str| {
            let is_ended = |line: &&str| line.starts_with("scm_gateway_telemetry_spans") && line.contains("\"ended\"");
            let line = metrics.lines().find(is_ended).unwrap();
            line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()
        };
        let mut client = client(&process.address).await;
        sink.hold();
        client.save_info(sample()).await.unwrap();
        sink.requests(1).await;
        for _ in 0..5 {
            client.save_info(sample()).await.unwrap();
        }
        while ended(&process.metrics().await) < 12 {}
        sink.release();

        let line = process.line("telemetry export is too slow").await;
        assert_eq!((&line["level"], &line["signal"]), (&"WARN".into(), &"spans".into()), "{protocol} {line}");
        assert_eq!(line["lost"], 12 - 1 - QUEUE, "{protocol} {line}");
        let line = process.line("telemetry export is fast enough again").await;
        assert_eq!((&line["level"], &line["lost"]), (&"INFO".into(), &0.into()), "{protocol} {line}");
        process.signal("TERM");
        process.end().await;
        assert_eq!(sink.spans().len() as u64, 1 + QUEUE);
    }
}

#[tokio::test]
async fn task_gauge_follows_the_open_connections() {
    let emulator = emulator().await;
    let process = Process::start(&emulator.endpoint(), &[]).await;
    let tasks = async || process.metric("scm_gateway_runtime_alive_tasks").await;
    let idle = tasks().await;
    let mut connections = Vec::new();
    for _ in 0..10 {
        connections.push(tokio::net::TcpStream::connect(&process.address).await.unwrap());
    }
    let more = idle + connections.len() as u64;
    while tasks().await < more {}
    drop(connections);
    while tasks().await >= more {}
}

#[tokio::test]
async fn account_failures_are_counted_by_reason() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    for (reply, reason) in [
        (Reply::json(403, r#"{"error_code":"SCM.1010","error_msg":"x"}"#), "UPSTREAM_ACCOUNT"),
        (Reply::new(429), "UPSTREAM_THROTTLED"),
    ] {
        emulator.script(Step::Reply(reply));
        gateway.save(sample()).await.unwrap_err();
        let metrics = gateway.admin("/metrics").await.1;
        let counted = |line: &&str| {
            line.starts_with("rpc_server_call_duration_seconds_count") && line.contains(&format!("=\"{reason}\""))
        };
        let line = metrics.lines().find(counted).unwrap_or_else(|| panic!("{reason} in {metrics}"));
        assert!(line.ends_with(" 1") && line.contains("scm_reason=") && !line.contains("error_type="), "{line}");
    }
}
