//! One SERVER span, one measurement and one log line per call.

use std::{convert::Infallible, sync::Arc, task};

use futures_util::future::BoxFuture;
use http::{Request, Response};
use opentelemetry::{
    Context, KeyValue,
    trace::{SpanKind, Status as SpanStatus, TraceContextExt as _, Tracer as _},
};
use tokio_util::task::TaskTracker;
use tonic::{Code, Status, body::Body};
use tower::Service;
use tracing::Level;

use super::GRPC_OWN;
use crate::{
    call::Call,
    caller::{Caller, Callers},
    clock,
    error::Reason,
    proto,
    telemetry::{Durations, Series, Telemetry, attribute as name, traceparent},
};

/// The target of the line that each call gets, for filters.
const AUDIT: &str = "scm_gateway::audit";

/// The method's name where it is none of ours: a caller must not be able to make up names.
const OTHER: &str = "_OTHER";

#[derive(Clone)]
pub(super) struct Observe<S> {
    inner: S,
    telemetry: Arc<Telemetry>,
    durations: Arc<Durations<Ended>>,
    calls: TaskTracker,
    callers: Arc<Callers>,
}

impl<S> Observe<S> {
    pub(super) fn new(inner: S, telemetry: Arc<Telemetry>, calls: TaskTracker, callers: Arc<Callers>) -> Self {
        let durations = telemetry.durations("rpc.server.call.duration", "Duration of a call, in seconds");
        Self { inner, telemetry, durations, calls, callers }
    }
}

impl<S, B> Service<Request<B>> for Observe<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        // Neither traced nor measured.
        if path.starts_with(GRPC_OWN) {
            return Box::pin(self.inner.call(request));
        }
        let caller = request.extensions().get::<Caller>().cloned().unwrap_or_default();
        // What a stranger says of its trace would fill the exporter at its will.
        let is_known = self.callers.may_look(&caller).is_ok();
        let parent = if is_known { traceparent::extract(request.headers()) } else { Context::new() };
        let observed = Observed::start(&self.telemetry, &self.durations, path, &parent, caller);
        request.extensions_mut().insert(observed.call.clone());
        let in_flight = self.calls.token();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            observed.end(&response);
            drop(in_flight);
            Ok(response)
        })
    }
}

/// A call whose span is open. Dropped before its end, it ends as a call that its caller gave up.
struct Observed {
    durations: Arc<Durations<Ended>>,
    rpc: &'static str,
    call: Arc<Call>,
    started: std::time::Instant,
    ended: bool,
}

impl Observed {
    fn start(
        telemetry: &Telemetry,
        durations: &Arc<Durations<Ended>>,
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
            call: Arc::new(Call::new(clock::steady(), parent.with_span(span), caller)),
            started: clock::stopwatch(),
            ended: false,
        }
    }

    fn end(mut self, response: &Response<Body>) {
        let status = Status::from_header_map(response.headers());
        self.finish(match status {
            Some(status) => status.code(),
            // What gRPC makes of an HTTP status without one of its own.
            None if response.status() != http::StatusCode::OK => Code::Unimplemented,
            // A success has its status in the trailers, behind the message.
            None => Code::Ok,
        });
    }

    fn finish(&mut self, code: Code) {
        self.ended = true;
        let reason = self.call.failure().map(|failure| failure.reason.name());
        let (elapsed, ended) = (self.started.elapsed(), Ended { rpc: self.rpc, code, reason });
        let span = self.call.context().span();
        span.set_attributes(ended.outcome());
        if ended.is_error() {
            span.set_status(SpanStatus::error(""));
        }
        span.end();
        self.durations.record(elapsed, ended);
        self.log(code, elapsed);
    }

    /// The one line of a call: who did what with which certificate, how it ended, and what an operator needs to find
    /// it. Whose business a failure is decides how loud it is.
    fn log(&self, code: Code, elapsed: std::time::Duration) {
        let (rpc, status, duration_ms) = (self.rpc, code_name(code), elapsed.as_secs_f64() * 1e3);
        let (identity, subject) = (self.call.caller().identity().map(AsRef::as_ref), self.call.subject());
        let project_id = subject.and_then(|subject| subject.project_id.as_deref());
        let cert_id = subject.and_then(|subject| subject.cert_id.as_deref());
        let upstream_request_id = self.call.upstream_request_id();
        let trace_id = traceparent::trace_id(self.call.context());
        let failure = self.call.failure();
        let (reason, attempts) = (failure.map(|f| f.reason.name()), failure.map(|f| f.attempts));
        let cause = failure.and_then(|f| f.cause);
        let answer = failure.and_then(|f| f.answer.as_deref());
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
        match (code, failure.map(|f| f.reason)) {
            (Code::Ok, _) => line!(Level::INFO, "call succeeded"),
            (Code::Cancelled, _) => line!(Level::INFO, "call cancelled"),
            // One line told of the circuit; its many calls are no news.
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

/// How a call ended, as its span and its measurement tell it.
#[derive(PartialEq, Eq, Hash)]
struct Ended {
    rpc: &'static str,
    code: Code,
    reason: Option<&'static str>,
}

impl Ended {
    /// INTERNAL without a reason of ours is how gRPC answers what a caller sends malformed.
    fn is_error(&self) -> bool {
        is_server_error(self.code) && (self.code != Code::Internal || self.reason.is_some())
    }

    fn outcome(&self) -> impl Iterator<Item = KeyValue> {
        let status = KeyValue::new(name::RPC_RESPONSE_STATUS_CODE, code_name(self.code));
        let reason = self.reason.map(|reason| KeyValue::new(name::SCM_REASON, reason));
        let error = self.is_error().then(|| KeyValue::new(name::ERROR_TYPE, code_name(self.code)));
        [Some(status), reason, error].into_iter().flatten()
    }
}

impl Series for Ended {
    fn labels(&self) -> Vec<KeyValue> {
        base(self.rpc).into_iter().chain(self.outcome()).collect()
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        if !self.ended {
            self.finish(Code::Cancelled);
        }
    }
}

fn base(rpc: &'static str) -> Vec<KeyValue> {
    vec![KeyValue::new(name::RPC_SYSTEM_NAME, "grpc"), KeyValue::new(name::RPC_METHOD, rpc)]
}

/// The codes that count as the server's failure (semantic conventions for gRPC).
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
