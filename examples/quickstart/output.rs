//! Prints the steps of the story: one screen each.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use scm_emulator::Recorded;
use scm_harness::otlp_sink::attribute;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::story::{PACKAGE, Step};

/// Prints a step: the call, its outcome, what SCM received, and the trace.
pub fn print(number: usize, step: &Step, spans: Vec<Span>) {
    println!("\n━━━ {number}. {}", step.title);
    println!("\n  call    {PACKAGE}.{}", step.rpc);
    step.call.iter().for_each(|line| println!("          {line}"));
    match &step.outcome {
        Ok(lines) => {
            println!("\n  reply   OK   {}", lines.first().map_or("", String::as_str));
            lines.iter().skip(1).for_each(|line| println!("               {line}"));
        }
        Err(status) => print_status(status),
    }
    print_requests(&step.sent);
    print_trace(&step.trace_id, spans);
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

/// Prints the first request in full, because the polls of a watch are alike.
fn print_requests(sent: &[Recorded]) {
    let Some((first, others)) = sent.split_first() else {
        println!("\n  REST    nothing was sent");
        return;
    };
    println!("\n  REST    {} {}", first.method, first.target);
    for (name, value) in &first.headers {
        let value = if name.eq_ignore_ascii_case("authorization") {
            value.split("Signature=").next().unwrap().to_owned() + "Signature=…"
        } else {
            value.clone()
        };
        println!("          {name}: {value}");
    }
    if !first.body.is_empty() {
        println!("          {}", shortened(&first.body));
    }
    if !others.is_empty() {
        println!("          … and {} more like this", others.len());
    }
}

/// Returns a JSON body with PEM texts cut.
fn shortened(body: &[u8]) -> String {
    const MAX: usize = 60;
    let text = String::from_utf8_lossy(body);
    let Some((before, pem)) = text.split_once("-----BEGIN") else { return text.into_owned() };
    let (pem, after) = pem.split_once('"').unwrap();
    format!("{before}-----BEGIN{}…\"{after}", &pem[..MAX.min(pem.len())])
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
