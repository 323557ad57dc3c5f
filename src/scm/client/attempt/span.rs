//! The CLIENT span and the duration of an attempt.

use std::sync::Arc;

use opentelemetry::{
    Context, KeyValue, StringValue,
    trace::{SpanKind, Status, TraceContextExt as _, Tracer as _},
};
use tokio::time::Instant;

use super::{Attempt, Upstream};
use crate::{
    clock,
    error::Error,
    ops::telemetry::{DurationHistogram, LabelSet, attribute as name, with_span},
    scm::api::{Decoded, Method},
};

/// An attempt with an open span. Dropped before its end, it ends as `CANCELLED`.
pub(super) struct AttemptSpan {
    durations: Arc<DurationHistogram<AttemptOutcome>>,
    pub(super) context: Context,
    destination: Destination,
    started: Instant,
    ended: bool,
}

impl AttemptSpan {
    /// Starts the span of an attempt, as a child of the call's span.
    pub(super) fn start(upstream: &Upstream, attempt: &Attempt<'_>) -> Self {
        let endpoint = &attempt.project.endpoint;
        let method = attempt.request.method;
        let destination = Destination { method, host: endpoint.host().clone(), port: endpoint.port() };
        let tracer = &upstream.telemetry.tracer;
        let parent = attempt.options.parent;
        let mut span = tracer.span_builder(method.span).with_kind(SpanKind::Client);
        // Every sampler samples the spans of a trace alike.
        if parent.span().is_recording() {
            let resent = attempt.number - 1;
            let resent = (resent > 0).then(|| KeyValue::new(name::HTTP_REQUEST_RESEND_COUNT, i64::from(resent)));
            span = span.with_attributes(destination.labels().into_iter().chain(resent));
        }
        let context = with_span(parent, span.start_with_context(tracer, parent));
        Self { durations: upstream.durations.clone(), context, destination, started: attempt.started, ended: false }
    }

    /// Ends the span with the result of the attempt.
    pub(super) fn end(mut self, result: &Result<Decoded, Error>) {
        let span = self.context.span();
        if span.is_recording() {
            let (code, request_id) = match result {
                Ok(decoded) => (None, decoded.request_id.clone()),
                Err(error) => {
                    let answer = error.answer.as_deref();
                    (answer.and_then(|a| a.code.clone()), answer.and_then(|a| a.request_id.clone()))
                }
            };
            span.set_attributes(code.map(|code| KeyValue::new(name::SCM_UPSTREAM_CODE, code)));
            span.set_attributes(request_id.map(|id| KeyValue::new(name::SCM_UPSTREAM_REQUEST_ID, id)));
        }
        let error = match result {
            Ok(decoded) => return self.finish(Some(decoded.http_status), None),
            Err(error) => error,
        };
        let status = error.answer.as_ref().map(|answer| answer.http_status);
        let is_error_status = status.is_some_and(|status| status >= 400);
        self.finish(status, (!is_error_status).then(|| error.reason.name()));
    }

    fn finish(&mut self, status: Option<u16>, failure: Option<&'static str>) {
        self.ended = true;
        let outcome = AttemptOutcome { destination: self.destination.clone(), status, failure };
        let span = self.context.span();
        if span.is_recording() {
            if outcome.error_type().is_some() {
                span.set_status(Status::error(""));
            }
            span.set_attributes(outcome.attributes());
            span.end();
        }
        self.durations.record(clock::monotonic() - self.started, outcome);
    }
}

impl Drop for AttemptSpan {
    fn drop(&mut self) {
        if !self.ended {
            self.finish(None, Some("CANCELLED"));
        }
    }
}

/// The attributes that all attempts of an RPC at an endpoint have in common.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Destination {
    method: &'static Method,
    host: Arc<str>,
    port: u16,
}

impl Destination {
    fn labels(&self) -> [KeyValue; 4] {
        [
            KeyValue::new(name::HTTP_REQUEST_METHOD, self.method.http.as_str()),
            KeyValue::new(name::SERVER_ADDRESS, self.host.clone()),
            KeyValue::new(name::SERVER_PORT, i64::from(self.port)),
            KeyValue::new(name::URL_TEMPLATE, self.method.template),
        ]
    }
}

/// The labels of an attempt's duration, which its span has as attributes.
#[derive(PartialEq, Eq, Hash)]
pub(in crate::scm::client) struct AttemptOutcome {
    destination: Destination,
    /// The HTTP status, if a response arrived.
    status: Option<u16>,
    /// The reason of a failure that is not an HTTP error status.
    failure: Option<&'static str>,
}

impl AttemptOutcome {
    fn error_type(&self) -> Option<StringValue> {
        let status = || self.status.filter(|status| *status >= 400).map(|status| status.to_string().into());
        self.failure.map(Into::into).or_else(status)
    }

    fn attributes(&self) -> impl Iterator<Item = KeyValue> {
        let status = self.status.map(|status| KeyValue::new(name::HTTP_RESPONSE_STATUS_CODE, i64::from(status)));
        let error = self.error_type().map(|kind| KeyValue::new(name::ERROR_TYPE, kind));
        status.into_iter().chain(error)
    }
}

impl LabelSet for AttemptOutcome {
    fn labels(&self) -> Vec<KeyValue> {
        self.destination.labels().into_iter().chain(self.attributes()).collect()
    }
}
