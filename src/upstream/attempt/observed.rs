//! What an attempt shows of itself: its CLIENT span, and one measurement.

use std::sync::Arc;

use opentelemetry::{
    Context, KeyValue, StringValue,
    trace::{SpanKind, Status, TraceContextExt as _, Tracer as _},
};

use super::{Attempt, Upstream};
use crate::{
    clock,
    error::Error,
    rest::{RestMethod, decode},
    telemetry::{Durations, Series, attribute as name},
};

/// An attempt whose span is open. Dropped before its end, it ends as one that nobody waits for any more.
pub(super) struct Observed {
    durations: Arc<Durations<Ended>>,
    pub(super) context: Context,
    to: Destination,
    started: std::time::Instant,
    ended: bool,
}

impl Observed {
    pub(super) fn start<M: RestMethod>(upstream: &Upstream, attempt: &Attempt<'_>) -> Self {
        let endpoint = &attempt.target.endpoint;
        let (host, port) = (endpoint.host().clone(), endpoint.port());
        let to = Destination { method: M::HTTP, host, port, template: M::TEMPLATE };
        let resent = attempt.number - 1;
        let resent = (resent > 0).then(|| KeyValue::new(name::HTTP_REQUEST_RESEND_COUNT, i64::from(resent)));
        let of_span = to.labels().into_iter().chain(resent).collect::<Vec<_>>();
        let (tracer, parent) = (&upstream.telemetry.tracer, attempt.call.context());
        let span = tracer.span_builder(M::SPAN).with_kind(SpanKind::Client).with_attributes(of_span);
        let context = parent.with_span(span.start_with_context(tracer, parent));
        Self { durations: upstream.durations.clone(), context, to, started: clock::stopwatch(), ended: false }
    }

    pub(super) fn end<R>(mut self, result: &Result<decode::Decoded<R>, Error>) {
        let (code, request_id) = match result {
            Ok(decoded) => (None, decoded.request_id.clone()),
            Err(error) => {
                let answer = error.answer.as_deref();
                (answer.and_then(|a| a.code.clone()), answer.and_then(|a| a.request_id.clone()))
            }
        };
        let span = self.context.span();
        span.set_attributes(code.map(|code| KeyValue::new(name::SCM_UPSTREAM_CODE, code)));
        span.set_attributes(request_id.map(|id| KeyValue::new(name::SCM_UPSTREAM_REQUEST_ID, id)));
        let Err(error) = result else { return self.finish(Some(200), None) };
        let status = error.answer.as_ref().map(|answer| answer.http_status);
        let says_so = status.is_some_and(|status| status >= 400);
        self.finish(status, (!says_so).then(|| error.reason.name()));
    }

    fn finish(&mut self, status: Option<u16>, failure: Option<&'static str>) {
        self.ended = true;
        let ended = Ended { to: self.to.clone(), status, failure };
        let span = self.context.span();
        if ended.error_type().is_some() {
            span.set_status(Status::error(""));
        }
        span.set_attributes(ended.outcome());
        span.end();
        self.durations.record(self.started.elapsed(), ended);
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        if !self.ended {
            self.finish(None, Some("CANCELLED"));
        }
    }
}

/// Where an attempt goes: what the spans and measurements of all attempts of an RPC to an endpoint say.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Destination {
    method: http::Method,
    host: Arc<str>,
    port: u16,
    template: &'static str,
}

impl Destination {
    fn labels(&self) -> [KeyValue; 4] {
        [
            KeyValue::new(name::HTTP_REQUEST_METHOD, self.method.to_string()),
            KeyValue::new(name::SERVER_ADDRESS, self.host.clone()),
            KeyValue::new(name::SERVER_PORT, i64::from(self.port)),
            KeyValue::new(name::URL_TEMPLATE, self.template),
        ]
    }
}

/// How an attempt ended, as its span and its measurement tell it.
#[derive(PartialEq, Eq, Hash)]
pub(in crate::upstream) struct Ended {
    to: Destination,
    /// The HTTP status, if an answer came.
    status: Option<u16>,
    /// What failed, where the status does not say so.
    failure: Option<&'static str>,
}

impl Ended {
    fn error_type(&self) -> Option<StringValue> {
        let status = || self.status.filter(|status| *status >= 400).map(|status| status.to_string().into());
        self.failure.map(Into::into).or_else(status)
    }

    fn outcome(&self) -> impl Iterator<Item = KeyValue> {
        let status = self.status.map(|status| KeyValue::new(name::HTTP_RESPONSE_STATUS_CODE, i64::from(status)));
        let error = self.error_type().map(|kind| KeyValue::new(name::ERROR_TYPE, kind));
        status.into_iter().chain(error)
    }
}

impl Series for Ended {
    fn labels(&self) -> Vec<KeyValue> {
        self.to.labels().into_iter().chain(self.outcome()).collect()
    }
}
