//! One SERVER span, one duration and one audit line per call.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{self, Poll},
};

use futures_util::future::BoxFuture;
use http::{Request, Response};
use opentelemetry::{
    Context, KeyValue,
    trace::{SpanKind, Status as SpanStatus, TraceContextExt as _, Tracer as _},
};
use tokio_util::task::TaskTracker;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service, layer::layer_fn};
use tracing::Level;

use crate::{
    clock,
    error::{Error, Reason},
    grpc::{
        auth::{AccessPolicy, Caller},
        context::CallContext,
        routes::BUILTIN_PREFIX,
        status::{self, UPSTREAM_REQUEST_ID},
    },
    ops::telemetry::{DurationHistogram, LabelSet, Telemetry, attribute as name, traceparent},
    proto,
};

/// The log target of the audit line, for filters.
const AUDIT: &str = "scm_gateway::audit";

/// The method label of a method that is not served, so that callers cannot add label values.
const OTHER: &str = "_OTHER";

/// What the trace layers of all connections share.
#[derive(Clone)]
pub(in crate::grpc) struct Shared(Arc<Inner>);

struct Inner {
    telemetry: Arc<Telemetry>,
    durations: Arc<DurationHistogram<CallOutcome>>,
    calls: TaskTracker,
    policy: Arc<AccessPolicy>,
}

impl Shared {
    pub(in crate::grpc) fn new(telemetry: Arc<Telemetry>, calls: TaskTracker, policy: Arc<AccessPolicy>) -> Self {
        let durations = telemetry.durations("rpc.server.call.duration", "Duration of a call, in seconds");
        Self(Arc::new(Inner { telemetry, durations, calls, policy }))
    }
}

/// A service whose calls are traced. Health and reflection are not.
#[derive(Clone)]
pub(in crate::grpc) struct Trace<S> {
    inner: S,
    shared: Shared,
}

impl<S> Trace<S> {
    pub(in crate::grpc) fn layer(shared: Shared) -> impl Layer<S, Service = Self> + Clone {
        layer_fn(move |inner| Self { inner, shared: shared.clone() })
    }
}

impl<S, B> Service<Request<B>> for Trace<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        if path.starts_with(BUILTIN_PREFIX) {
            return Box::pin(self.inner.call(request));
        }
        let Inner { telemetry, durations, calls, policy } = &*self.shared.0;
        let caller = request.extensions().get::<Caller>().cloned().unwrap_or_default();
        // The sampled flag of an unlisted caller could fill the exporter.
        let is_listed = policy.require_listed(&caller).is_ok();
        let parent = if is_listed { traceparent::extract(request.headers()) } else { Context::new() };
        let span = CallSpan::start(telemetry, durations, path, &parent, caller);
        request.extensions_mut().insert(span.call.clone());
        let in_flight = calls.token();
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await?;
            span.end(&response);
            drop(in_flight);
            Ok(response)
        })
    }
}

/// A call with an open span. Dropped before its end, it ends as CANCELLED.
struct CallSpan {
    durations: Arc<DurationHistogram<CallOutcome>>,
    rpc: &'static str,
    call: Arc<CallContext>,
    started: std::time::Instant,
    ended: bool,
}

/// What a response says about its call.
struct Ending<'a> {
    code: Code,
    error: Option<&'a Error>,
    upstream_request_id: Option<&'a str>,
}

impl<'a> Ending<'a> {
    fn of(response: &'a Response<Body>) -> Self {
        let status = status::of_response(response);
        let upstream_request_id = response.headers().get(UPSTREAM_REQUEST_ID).and_then(|id| id.to_str().ok());
        Self { code: code(response, status), error: status.and_then(status::source), upstream_request_id }
    }

    const CANCELLED: Self = Self { code: Code::Cancelled, error: None, upstream_request_id: None };
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
    fn start(
        telemetry: &Telemetry,
        durations: &Arc<DurationHistogram<CallOutcome>>,
        path: &str,
        parent: &Context,
        caller: Caller,
    ) -> Self {
        let rpc = path.strip_prefix('/').and_then(|path| proto::RPCS.iter().find(|rpc| **rpc == path));
        let span = telemetry
            .tracer
            .span_builder(*rpc.unwrap_or(&"grpc"))
            .with_kind(SpanKind::Server)
            .with_attributes(base(rpc.unwrap_or(&OTHER)))
            .start_with_context(&telemetry.tracer, parent);
        Self {
            durations: durations.clone(),
            rpc: rpc.unwrap_or(&OTHER),
            call: Arc::new(CallContext::new(clock::monotonic(), parent.with_span(span), caller)),
            started: clock::instant(),
            ended: false,
        }
    }

    fn end(mut self, response: &Response<Body>) {
        self.finish(&Ending::of(response));
    }

    fn finish(&mut self, ending: &Ending<'_>) {
        self.ended = true;
        let elapsed = self.started.elapsed();
        let reason = ending.error.map(|error| error.reason.name());
        let outcome = CallOutcome { rpc: self.rpc, code: ending.code, reason };
        let span = self.call.trace().span();
        span.set_attributes(outcome.attributes());
        if outcome.is_error() {
            span.set_status(SpanStatus::error(""));
        }
        span.end();
        self.durations.record(elapsed, outcome);
        self.log(ending, elapsed);
    }

    /// Writes the audit line: who did what to which certificate, how it ended, and what an operator needs to find it.
    /// The level depends on who has to act on a failure.
    fn log(&self, ending: &Ending<'_>, elapsed: std::time::Duration) {
        let rpc = self.rpc;
        let status = code_name(ending.code);
        let duration_ms = elapsed.as_secs_f64() * 1e3;
        let identity = self.call.caller().identity().map(AsRef::as_ref);
        let resource = self.call.resource();
        let project_id = resource.and_then(|resource| resource.project_id.as_deref());
        let cert_id = resource.and_then(|resource| resource.cert_id.as_deref());
        let upstream_request_id = ending.upstream_request_id;
        let trace_id = traceparent::trace_id(self.call.trace());
        let error = ending.error;
        let reason = error.map(|e| e.reason.name());
        let attempts = error.map(|e| e.attempts);
        let cause = error.and_then(|e| e.cause);
        let answer = error.and_then(|e| e.answer.as_deref());
        let http_status = answer.map(|a| a.http_status);
        let upstream_code = answer.and_then(|a| a.code.as_deref());
        macro_rules! line {
            ($level:expr, $message:literal) => {
                tracing::event!(
                    target: AUDIT,
                    $level,
                    identity,
                    rpc,
                    project_id,
                    cert_id,
                    status,
                    reason,
                    cause,
                    attempts,
                    http_status,
                    upstream_code,
                    upstream_request_id,
                    trace_id,
                    duration_ms,
                    $message
                )
            };
        }
        match (ending.code, error.map(|e| e.reason)) {
            (Code::Ok, _) => line!(Level::INFO, "call succeeded"),
            (Code::Cancelled, _) => line!(Level::INFO, "call cancelled"),
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

/// The labels of a call's duration, which its span has as attributes.
#[derive(PartialEq, Eq, Hash)]
struct CallOutcome {
    rpc: &'static str,
    code: Code,
    reason: Option<&'static str>,
}

impl CallOutcome {
    /// INTERNAL without a reason is gRPC's status for a malformed request, which is the caller's fault.
    fn is_error(&self) -> bool {
        is_server_error(self.code) && (self.code != Code::Internal || self.reason.is_some())
    }

    fn attributes(&self) -> impl Iterator<Item = KeyValue> {
        let status = KeyValue::new(name::RPC_RESPONSE_STATUS_CODE, code_name(self.code));
        let reason = self.reason.map(|reason| KeyValue::new(name::SCM_REASON, reason));
        let error = self.is_error().then(|| KeyValue::new(name::ERROR_TYPE, code_name(self.code)));
        [Some(status), reason, error].into_iter().flatten()
    }
}

impl LabelSet for CallOutcome {
    fn labels(&self) -> Vec<KeyValue> {
        base(self.rpc).into_iter().chain(self.attributes()).collect()
    }
}

fn base(rpc: &'static str) -> Vec<KeyValue> {
    vec![KeyValue::new(name::RPC_SYSTEM_NAME, "grpc"), KeyValue::new(name::RPC_METHOD, rpc)]
}

/// Returns whether the semantic conventions for gRPC count the code as an error of the server.
fn is_server_error(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
