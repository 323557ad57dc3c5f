//! One attempt: its CLIENT span, its signature, its judgement.

use http::HeaderValue;
use opentelemetry::{
    Context, KeyValue,
    trace::{SpanKind, Status, TraceContextExt as _, Tracer as _},
};
use tokio::time::Instant;

use super::{Upstream, key, signed, target::Target, transport::SendError};
use crate::{
    call::Call,
    clock,
    error::{Error, Progress, Reason},
    rest::{RestMethod, UnsignedRequest, decode},
    secret::Credentials,
    status,
    telemetry::{attribute as name, traceparent},
};

/// What one attempt is made of.
pub(super) struct Attempt<'a> {
    pub(super) request: &'a UnsignedRequest,
    pub(super) target: &'a Target,
    pub(super) call: &'a Call,
    pub(super) deadline: Instant,
    /// The first is 1.
    pub(super) number: u32,
}

impl Upstream {
    /// Signs, sends and judges, once. `place` learns what that tells about the key.
    pub(super) async fn attempt<M: RestMethod>(
        &self,
        attempt: &Attempt<'_>,
        place: key::Pass<'_>,
    ) -> Result<decode::Decoded<M::Reply>, Error> {
        let started = clock::stopwatch();
        let mut attributes = attributes::<M>(attempt.target);
        let mut of_span = attributes.clone();
        let resend = attempt.number - 1;
        of_span.extend((resend > 0).then(|| KeyValue::new(name::HTTP_REQUEST_RESEND_COUNT, i64::from(resend))));
        let tracer = &self.telemetry.tracer;
        let span = tracer.span_builder(M::SPAN).with_kind(SpanKind::Client).with_attributes(of_span);
        let parent = attempt.call.context();
        let context = parent.with_span(span.start_with_context(tracer, parent));

        let exchange = self.exchange::<M>(attempt, place.credentials(), traceparent::header(&context));
        let result = Self::within(attempt.deadline, exchange).await;

        place.settle(key::Verdict::of(&result));
        attributes.extend(outcome(&result));
        self.telemetry.request_duration.record(started.elapsed().as_secs_f64(), &attributes);
        end_span(&context, &result);
        result
    }

    async fn exchange<M: RestMethod>(
        &self,
        attempt: &Attempt<'_>,
        key: &Credentials,
        traceparent: Option<HeaderValue>,
    ) -> Result<decode::Decoded<M::Reply>, Error> {
        let now = self.skew.correct(self.clock.now());
        let mut signed = signed::sign(attempt.request, attempt.target, key, self.send_project_id, now);
        if let Some(traceparent) = traceparent {
            signed.headers.insert(traceparent::TRACEPARENT, traceparent);
        }
        let raw = self.transport.send(signed).await.map_err(unanswered::<M>)?;
        let now = self.clock.now();
        self.skew.observe(&raw.headers, now);
        decode::decode::<M>(&raw, now).map_err(|error| error.without(&key.access_key))
    }
}

fn attributes<M: RestMethod>(target: &Target) -> Vec<KeyValue> {
    vec![
        KeyValue::new(name::HTTP_REQUEST_METHOD, M::HTTP.to_string()),
        KeyValue::new(name::SERVER_ADDRESS, target.endpoint.host().to_owned()),
        KeyValue::new(name::SERVER_PORT, i64::from(target.endpoint.port())),
        KeyValue::new(name::URL_TEMPLATE, M::TEMPLATE),
    ]
}

/// What it means that no whole answer came. A request that may have been carried out leaves a caller who may not
/// repeat it in doubt, and is told so.
fn unanswered<M: RestMethod>(error: SendError) -> Error {
    match error {
        SendError::Connect => Error::new(Reason::UpstreamUnavailable, Progress::NotSent),
        SendError::Tls { sent: false } => Error::new(Reason::UpstreamTls, Progress::NotSent),
        SendError::Tls { sent: true } => Error::new(Reason::UpstreamTls, Progress::MaybeSent),
        SendError::Lost if M::IDEMPOTENT => Error::new(Reason::UpstreamUnavailable, Progress::MaybeSent),
        SendError::Lost => Error::new(Reason::UpstreamOutcomeUnknown, Progress::MaybeSent),
        SendError::Malformed => Error::new(Reason::UpstreamMalformed, Progress::MaybeSent),
        SendError::TooLarge(answer) => Error::answered(Reason::UpstreamTooLarge, answer),
    }
}

/// The attributes that tell the outcome: the HTTP status, and what failed.
fn outcome<R>(result: &Result<decode::Decoded<R>, Error>) -> Vec<KeyValue> {
    let status = match result {
        Ok(_) => Some(200),
        Err(error) => error.answer.as_ref().map(|answer| answer.http_status),
    };
    let mut attributes: Vec<_> =
        status.map(|status| KeyValue::new(name::HTTP_RESPONSE_STATUS_CODE, i64::from(status))).into_iter().collect();
    if let Err(error) = result {
        let kind = match status.filter(|status| *status >= 400) {
            Some(status) => status.to_string().into(),
            None => opentelemetry::StringValue::from(status::row(error.reason).1),
        };
        attributes.push(KeyValue::new(name::ERROR_TYPE, kind));
    }
    attributes
}

fn end_span<R>(context: &Context, result: &Result<decode::Decoded<R>, Error>) {
    let span = context.span();
    span.set_attributes(outcome(result));
    let (code, request_id) = match result {
        Ok(decoded) => (None, decoded.request_id.clone()),
        Err(error) => {
            span.set_status(Status::error(""));
            let answer = error.answer.as_deref();
            (answer.and_then(|a| a.code.clone()), answer.and_then(|a| a.request_id.clone()))
        }
    };
    span.set_attributes(code.map(|code| KeyValue::new(name::SCM_UPSTREAM_CODE, code)));
    span.set_attributes(request_id.map(|id| KeyValue::new(name::SCM_UPSTREAM_REQUEST_ID, id)));
    span.end();
}
