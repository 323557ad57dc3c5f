//! The span, the duration and the audit line of one call.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Response};
use opentelemetry::{
    Context, KeyValue,
    trace::{SpanKind, Status as SpanStatus, TraceContextExt as _, Tracer as _},
};
use tonic::{Code, Status, body::Body};
use tracing::Level;

use super::outcome::{CallOutcome, Rpc, base};
use crate::{
    clock,
    error::{Error, Reason},
    grpc::{
        auth::Caller,
        context::CallContext,
        dry_run::DryRun,
        status::{self, UPSTREAM_REQUEST_ID, code_name},
    },
    ops::telemetry::{DurationHistogram, Telemetry, attribute, traceparent, with_span},
};

/// The log target of the audit line, for filters.
const AUDIT: &str = "scm_gateway::audit";

/// A call with an open span. Dropped before its end, it ends as CANCELLED.
pub(super) struct CallSpan {
    durations: Arc<DurationHistogram<CallOutcome>>,
    rpc: Rpc,
    call: Arc<CallContext>,
    ended: bool,
}

/// What a response says about its call.
struct Ending<'a> {
    code: Code,
    error: Option<&'a Error>,
    upstream_request_id: Option<&'a str>,
    is_stream: bool,
}

impl<'a> Ending<'a> {
    fn of(response: &'a Response<Body>) -> Self {
        let status = status::of_response(response);
        let upstream_request_id = upstream_request_id(response.headers());
        let error = status.and_then(status::source);
        Self { code: code(response, status), error, upstream_request_id, is_stream: false }
    }

    const CANCELLED: Self = Self { code: Code::Cancelled, error: None, upstream_request_id: None, is_stream: false };

    /// Returns whether a stream was ended by its caller's deadline, or with its connection. A stream that nothing else ends
    /// has no other end, so this is no failure.
    fn is_expected(&self) -> bool {
        let reason = self.error.map(|error| error.reason);
        self.is_stream && matches!(reason, Some(Reason::Deadline | Reason::ShuttingDown))
    }
}

fn upstream_request_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(&UPSTREAM_REQUEST_ID)?.to_str().ok()
}

fn code(response: &Response<Body>, status: Option<&Status>) -> Code {
    match status {
        Some(status) => status.code(),
        // gRPC's mapping of an HTTP status without a gRPC status.
        None if response.status() != http::StatusCode::OK => Code::Unimplemented,
        // A success has its status in the trailers, after the message. A status in the headers is one of tonic's.
        None => Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code()),
    }
}

impl CallSpan {
    /// Opens the span of a call of this method.
    pub(super) fn start(
        telemetry: &Telemetry,
        durations: &Arc<DurationHistogram<CallOutcome>>,
        path: &str,
        parent: &Context,
        caller: Caller,
        dry_run: DryRun,
    ) -> Self {
        let rpc = Rpc::of(path);
        let span = telemetry
            .tracer
            .span_builder(rpc.name().unwrap_or("grpc"))
            .with_kind(SpanKind::Server)
            .with_attributes(base(rpc))
            .start_with_context(&telemetry.tracer, parent);
        Self {
            durations: durations.clone(),
            rpc,
            call: Arc::new(CallContext::new(clock::monotonic(), with_span(parent, span), caller, dry_run)),
            ended: false,
        }
    }

    /// Returns the context of the call.
    pub(super) fn context(&self) -> &Arc<CallContext> {
        &self.call
    }

    fn is_dry_run(&self) -> bool {
        self.call.dry_run() == DryRun::Yes
    }

    /// Ends the span with what the response says.
    pub(super) fn end(mut self, response: &Response<Body>) {
        self.finish(&Ending::of(response));
    }

    /// Ends the span of a stream with what its trailers say.
    pub(super) fn end_stream(mut self, trailers: &HeaderMap) {
        let code = Status::from_header_map(trailers).map_or(Code::Ok, |status| status.code());
        let call = self.call.clone();
        let upstream_request_id = upstream_request_id(trailers);
        self.finish(&Ending { code, error: call.stream_error(), upstream_request_id, is_stream: true });
    }

    fn finish(&mut self, ending: &Ending<'_>) {
        self.ended = true;
        let elapsed = self.call.elapsed();
        let reason = ending.error.map(|error| error.reason.name());
        let outcome = CallOutcome { rpc: self.rpc, code: ending.code, reason, is_expected: ending.is_expected() };
        let span = self.call.trace().span();
        if span.is_recording() {
            span.set_attributes(outcome.attributes());
            if self.is_dry_run() {
                span.set_attribute(KeyValue::new(attribute::SCM_DRY_RUN, true));
            }
            if outcome.is_error() {
                span.set_status(SpanStatus::error(""));
            }
            span.end();
        }
        // A dry run succeeds while SCM is down, and would hide the calls that fail then.
        if !self.is_dry_run() {
            self.durations.record(elapsed, outcome);
        }
        self.log(ending, elapsed);
    }

    /// Writes the audit line: who did what to which resource, how it ended, and what an operator needs to find it.
    /// The level depends on who has to act on a failure.
    fn log(&self, ending: &Ending<'_>, elapsed: Duration) {
        let rpc = self.rpc.label();
        let status = code_name(ending.code);
        let duration_ms = elapsed.as_secs_f64() * 1e3;
        let identity = self.call.caller().identity().map(AsRef::as_ref);
        let resource = self.call.resource();
        let project_id = resource.and_then(|resource| resource.project_id.as_deref());
        let id = |name| {
            let (variable, id) = resource?.id.as_ref()?;
            (*variable == name).then_some(&**id)
        };
        let dry_run = self.is_dry_run().then_some(true);
        let (cert_id, csr_id, product_id) = (id("cert_id"), id("csr_id"), id("product_id"));
        let upstream_request_id = ending.upstream_request_id;
        let trace_id = traceparent::trace_id(self.call.trace());
        let error = ending.error;
        let reason = error.map(|e| e.reason.name());
        let retried = self.call.retried();
        let attempts = error.map(|e| e.attempts).or(retried.map(|retried| retried.attempts));
        let cause = error.and_then(|e| e.cause);
        let answer = error.and_then(|e| e.answer.as_deref());
        let http_status = answer.map(|a| a.http_status).or(retried.map(|retried| retried.http_status));
        let upstream_code = answer.and_then(|a| a.code.as_deref());
        macro_rules! line {
            ($level:expr, $message:literal) => {
                tracing::event!(
                    target: AUDIT,
                    $level,
                    message = $message, // as a field, it needs no formatting
                    identity,
                    rpc,
                    project_id,
                    cert_id,
                    csr_id,
                    product_id,
                    dry_run,
                    status,
                    reason,
                    cause,
                    attempts,
                    http_status,
                    upstream_code,
                    upstream_request_id,
                    trace_id,
                    duration_ms,
                )
            };
        }
        match (ending.code, error.map(|e| e.reason)) {
            (Code::Ok, _) => line!(Level::INFO, "call succeeded"),
            (Code::Cancelled, _) => line!(Level::INFO, "call cancelled"),
            _ if ending.is_expected() => line!(Level::INFO, "stream ended"),
            // The line "circuit opened" is the warning. The rejected calls are not.
            (_, Some(Reason::CircuitOpen)) => line!(Level::INFO, "call rejected"),
            (_, Some(Reason::UpstreamCredentials)) if attempts == Some(0) => line!(Level::INFO, "call rejected"),
            (Code::Internal, None) => line!(Level::INFO, "call rejected"),
            (Code::Internal | Code::Unknown | Code::DataLoss, _) => line!(Level::ERROR, "call failed"),
            (Code::Unavailable | Code::DeadlineExceeded, _) => line!(Level::WARN, "call failed"),
            (_, Some(Reason::UpstreamAccount | Reason::UpstreamThrottled | Reason::Overloaded)) => {
                line!(Level::WARN, "call failed")
            }
            _ => line!(Level::INFO, "call rejected"),
        }
    }
}

impl Drop for CallSpan {
    fn drop(&mut self) {
        if !self.ended {
            self.finish(&Ending::CANCELLED);
        }
    }
}
