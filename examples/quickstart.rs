//! Runs the gateway in front of an emulated SCM, makes three calls, and shows the result of each.
//!
//! `cargo run --example quickstart` then ends. With `-- --serve` the gateway keeps running for further calls.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "an example that prints, and panics on errors"
)]

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use scm_emulator::{Emulator, Options, Recorded, SAMPLE_ACCESS_KEY, SAMPLE_PROJECT, SAMPLE_SECRET_KEY};
use scm_gateway::{
    app::run,
    clock::Clock,
    config,
    grpc::service::certificate_service_client::CertificateServiceClient,
    proto::{CertificateInfo, SaveInfoRequest},
    runtime::Workers,
};
use tokio::sync::oneshot;
use tonic::{Code, Request, Response, Status, transport::Channel};
use tonic_types::StatusExt as _;

use scm_harness::otlp_sink::{Sink, attribute};

/// A certificate whose information can be saved, and a certificate that is already issued.
const DRAFT: &str = "scs1481110651012";
const ISSUED: &str = "scs1481110651999";

#[tokio::main]
async fn main() {
    let serve = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--serve" => true,
        _ => {
            println!("usage: cargo run --example quickstart [-- --serve]");
            std::process::exit(2);
        }
    };
    let observer: scm_emulator::Observer = Arc::new(move |answered| {
        if serve {
            println!(
                "request to SCM: {} {} -> {:?}",
                answered.method,
                answered.path,
                answered.status.unwrap_or_default()
            );
        }
    });
    let options = Options { issued: vec![ISSUED.to_owned()], ..Options::default() };
    let emulator = Emulator::start(options.clone()).await.unwrap();
    let sink = Sink::grpc().await;
    println!("SCM (emulated) listens on {}", emulator.endpoint());
    show(&emulator, &sink).await;
    if serve {
        let emulator = Emulator::start(Options { observer: Some(observer), ..options }).await.unwrap();
        serve_calls(&emulator, sink.address).await;
    } else {
        println!("\nNext: `cargo run --example quickstart -- --serve` keeps running and shows how to call it.");
    }
}

/// Makes the three calls and shows the result of each.
async fn show(emulator: &Emulator, sink: &Sink) {
    let (started, addresses) = oneshot::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let gateway =
        tokio::spawn(run(configuration(emulator, sink.address), Workers::current(), Clock::system(), started, async {
            let _ = stopped.await;
        }));
    let address = addresses.await.unwrap().server;
    println!("the gateway listens on {address}");
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut client = CertificateServiceClient::new(channel);

    let mut shown = Vec::new();
    for (number, (title, request)) in calls().into_iter().enumerate() {
        let trace_id = format!("{:032x}", 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4700_u128 + number as u128 + 1);
        let mut call = Request::new(request.clone());
        let traceparent = format!("00-{trace_id}-00000000000ca11e-01").parse().unwrap();
        call.metadata_mut().insert("traceparent", traceparent);
        let before = emulator.journal().len();
        let answer = client.save_info(call).await;
        shown.push((title, request, answer, emulator.journal().into_iter().nth(before), trace_id));
    }
    stop.send(()).unwrap(); // the shutdown exports the remaining spans
    gateway.await.unwrap().unwrap();

    for (number, (title, request, answer, sent, trace_id)) in shown.into_iter().enumerate() {
        println!("\n━━━ {}. {title}", number + 1);
        print_call(&request);
        match &answer {
            Ok(reply) => print_reply(reply),
            Err(status) => print_status(status),
        }
        let spans = sink.trace(&trace_id, if sent.is_some() { 2 } else { 1 }).await;
        print_request(sent.as_ref());
        print_trace(&trace_id, spans);
    }
}

/// Returns the configuration for the emulator and the collector.
fn configuration(emulator: &Emulator, collector: SocketAddr) -> config::Config {
    let environment = BTreeMap::from(
        [
            ("HUAWEICLOUD_SDK_AK", SAMPLE_ACCESS_KEY.to_owned()),
            ("HUAWEICLOUD_SDK_SK", SAMPLE_SECRET_KEY.to_owned()),
            ("HUAWEICLOUD_SDK_PROJECT_ID", SAMPLE_PROJECT.to_owned()),
            ("SCM_GATEWAY__SERVER__LISTEN", "127.0.0.1:0".to_owned()),
            ("SCM_GATEWAY__SERVER__LAME_DUCK", "0s".to_owned()),
            ("SCM_GATEWAY__ADMIN__LISTEN", "127.0.0.1:0".to_owned()),
            ("SCM_GATEWAY__UPSTREAM__ENDPOINT", emulator.endpoint()),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}")),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc".to_owned()),
            ("OTEL_METRICS_EXPORTER", "none".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    config::load(None, &environment, &Clock::system()).unwrap()
}

fn calls() -> [(&'static str, SaveInfoRequest); 3] {
    let valid = SaveInfoRequest { project_id: String::new(), cert_id: DRAFT.to_owned(), info: Some(sample()) };
    let issued = SaveInfoRequest { cert_id: ISSUED.to_owned(), ..valid.clone() };
    let invalid = CertificateInfo {
        domain: "https://www.xzz.com/".to_owned(),
        sans: vec!["xzz.com".to_owned(), "XZZ.com".to_owned()],
        country: "China".to_owned(),
        agree_privacy_protection: false,
        ..sample()
    };
    let invalid = SaveInfoRequest { info: Some(invalid), ..valid.clone() };
    [
        ("a SaveInfo that succeeds", valid),
        ("a SaveInfo that SCM rejects: the certificate is already issued", issued),
        ("a SaveInfo that the gateway rejects: nothing is sent", invalid),
    ]
}

/// Returns the values of the vendor's example.
fn sample() -> CertificateInfo {
    CertificateInfo {
        domain: "www.xzz.com".to_owned(),
        sans: vec!["xzz.com".to_owned()],
        company_name: "Huawei Chengdu branch".to_owned(),
        company_unit: Some("Human Resource Dept".to_owned()),
        company_province: "Sichuan".to_owned(),
        company_city: "Chengdu".to_owned(),
        country: "CN".to_owned(),
        applicant_name: "Tom".to_owned(),
        applicant_phone: "13212345678".to_owned(),
        applicant_email: "9997342346@qq.com".to_owned(),
        contact_name: Some("Jacky".to_owned()),
        contact_phone: Some("13512345678".to_owned()),
        contact_email: Some("jk@jk.ff".to_owned()),
        agree_privacy_protection: true,
        ..CertificateInfo::default()
    }
}

fn print_call(request: &SaveInfoRequest) {
    let info = request.info.as_ref().unwrap();
    println!("\n  call    huaweicloud.scm.v1.CertificateService/SaveInfo");
    println!("          cert_id {:?}   (project_id empty: the default project)", request.cert_id);
    println!("          info    domain {:?}, sans {:?}, country {:?},", info.domain, info.sans, info.country);
    println!("                  agree_privacy_protection {}, …", info.agree_privacy_protection);
}

fn print_reply(reply: &Response<scm_gateway::proto::SaveInfoResponse>) {
    println!("\n  reply   OK   request_info {:?}", reply.get_ref().request_info);
    if let Some(id) = reply.metadata().get("x-upstream-request-id") {
        println!("          x-upstream-request-id: {}", id.to_str().unwrap());
    }
}

fn print_status(status: &Status) {
    println!("\n  status  {}: {}", code_name(status.code()), status.message());
    let details = status.get_error_details();
    if let Some(info) = details.error_info() {
        let metadata: BTreeMap<_, _> = info.metadata.iter().collect();
        println!("          ErrorInfo   {} / {}", info.domain, info.reason);
        metadata.iter().for_each(|(key, value)| println!("                      {key}: {value}"));
    }
    for violation in details.bad_request().map(|request| request.field_violations.as_slice()).unwrap_or_default() {
        println!("          BadRequest  {}: {}", violation.field, violation.description);
    }
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        other => other.description(),
    }
}

fn print_request(sent: Option<&Recorded>) {
    let Some(sent) = sent else {
        println!("\n  REST    nothing was sent");
        return;
    };
    println!("\n  REST    {} {}", sent.method, sent.target);
    for (name, value) in &sent.headers {
        let value = if name.eq_ignore_ascii_case("authorization") {
            value.split("Signature=").next().unwrap().to_owned() + "Signature=…"
        } else {
            value.clone()
        };
        println!("          {name}: {value}");
    }
    println!("          {}", String::from_utf8_lossy(&sent.body));
}

/// Prints the spans of a call, each with a bar that shows its part of the total time.
fn print_trace(trace_id: &str, mut spans: Vec<Span>) {
    const WIDTH: u64 = 40;
    spans.sort_by_key(|span| span.start_time_unix_nano);
    let start = spans.iter().map(|span| span.start_time_unix_nano).min().unwrap();
    let total = spans.iter().map(|span| span.end_time_unix_nano - start).max().unwrap().max(1);
    println!("\n  trace   {trace_id}");
    for span in &spans {
        let from = span.start_time_unix_nano - start;
        let to = span.end_time_unix_nano - start;
        let left = from * WIDTH / total;
        let right = (to * WIDTH).div_ceil(total);
        let bar = format!("{:left$}{}", "", "█".repeat((right - left).max(1) as usize), left = left as usize);
        let indent = if span.kind() == SpanKind::Client { "└ " } else { "" };
        let label = format!("{indent}{}", span.name);
        println!("          {label:<56} │{bar:<40}│ {:>8.3} ms", (to - from) as f64 / 1e6);
        let names = ["rpc.response.status_code", "scm.reason", "http.response.status_code", "scm.upstream_code"];
        let attributes: Vec<_> =
            names.iter().filter_map(|name| Some(format!("{name}={}", attribute(span, name)?))).collect();
        println!("          {:<56} │{:40}│ {}", "", "", attributes.join(" ").replace("=int ", "="));
    }
}

/// Serves calls until Ctrl-C.
async fn serve_calls(emulator: &Emulator, collector: SocketAddr) {
    let (started, addresses) = oneshot::channel();
    let gateway =
        tokio::spawn(run(configuration(emulator, collector), Workers::current(), Clock::system(), started, async {
            let _ = tokio::signal::ctrl_c().await;
        }));
    let addresses = addresses.await.unwrap();
    let address = &addresses.server;
    println!("\n━━━ The gateway serves calls on {address} (admin on http://{}) until Ctrl-C.", addresses.admin);
    println!(
        r#"
Call it from another terminal, with npm:

  npx --yes @bufbuild/buf curl --protocol grpc --http2-prior-knowledge \
    -d '{{"cert_id": "{DRAFT}", "info": {{"domain": "www.xzz.com", "country": "CN",
         "applicant_name": "Tom", "applicant_phone": "13212345678", "applicant_email": "9997342346@qq.com",
         "agree_privacy_protection": true}}}}' \
    http://{address}/huaweicloud.scm.v1.CertificateService/SaveInfo

  npx --yes @bufbuild/buf curl --protocol grpc --http2-prior-knowledge \
    -d '{{"cert_id": "{DRAFT}"}}' \
    http://{address}/huaweicloud.scm.v1.CertificateService/ReadInfo

or with grpcurl:

  grpcurl -plaintext -d '{{"cert_id": "{DRAFT}"}}' {address} huaweicloud.scm.v1.CertificateService/ReadInfo

and read its metrics:

  curl http://{admin}/metrics
"#,
        admin = addresses.admin
    );
    gateway.await.unwrap().unwrap();
}
