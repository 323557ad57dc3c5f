//! One attempt: its CLIENT span, its signature, its judgement.

use std::{sync::Arc, time::SystemTime};

use http::{HeaderMap, HeaderValue};
use opentelemetry::{
    Context, KeyValue, StringValue,
    trace::{SpanKind, Status, TraceContextExt as _, Tracer as _},
};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{
    Upstream, key, signed, skew,
    target::Target,
    transport::{Begun, Broken, SendError, Transport},
};
use crate::{
    call::Call,
    clock::{self, Clock},
    error::{Error, Progress, Reason},
    rest::{RestMethod, UnsignedRequest, decode},
    secret::Credentials,
    telemetry::{Durations, Series, attribute as name, traceparent},
};

/// A part that is shorter stands in an id or a signature by chance.
const PART: usize = 12;

/// What one attempt is made of.
pub(super) struct Attempt<'a> {
    pub(super) request: &'a UnsignedRequest,
    pub(super) target: &'a Target,
    pub(super) call: &'a Call,
    pub(super) deadline: Instant,
    /// The first is 1.
    pub(super) number: u32,
    /// Seconds added to our clock.
    pub(super) offset: i64,
}

impl Upstream {
    /// Signs, sends and judges, once. `place` learns what that tells about the key.
    pub(super) async fn attempt<M: RestMethod>(
        &self,
        attempt: &Attempt<'_>,
        place: key::Pass,
    ) -> Result<decode::Decoded<M::Reply>, Error> {
        let observed = Observed::start::<M>(self, attempt);
        let _looks = attempt.target.throttle.attempt();
        let (signed, ours) = self.sign(attempt, place.credentials(), traceparent::header(&observed.context));
        let begun = Begun::default();
        let (transport, clock, deadline) = (self.transport.clone(), self.clock.clone(), attempt.deadline);
        // Boxed, for it is large, and would be copied from one future that waits for it to the next.
        let exchange = Box::pin(exchange::<M>(transport, signed, begun.clone(), deadline, clock));
        let (heard, place) = self.listen::<M>(deadline, &begun, exchange, place).await;
        let result = heard.and_then(|Heard { head, result }| {
            if let Some((headers, received)) = head {
                attempt.target.skew.observe(&headers, received);
            }
            without(ours, result)
        });
        let throttle = &attempt.target.throttle;
        match &result {
            // Before the place goes to somebody who waits.
            Err(error) if error.reason == Reason::UpstreamThrottled => throttle.hold(error.retry_after),
            // Who cannot be reached does not throttle: that is for the circuit.
            Ok(_) | Err(Error { reason: Reason::UpstreamUnavailable | Reason::UpstreamTls, .. }) => throttle.served(),
            Err(error) if error.progress == Progress::Answered => throttle.served(),
            Err(_) => {}
        }
        if let Some(place) = place {
            place.settle(key::Verdict::of(&result));
        }
        observed.end(&result);
        result
    }

    /// The request of an attempt, and the parts of our key that no answer may hold.
    fn sign(
        &self,
        attempt: &Attempt<'_>,
        key: &Credentials,
        traceparent: Option<HeaderValue>,
    ) -> (signed::SignedRequest, Vec<String>) {
        let now = skew::corrected(self.clock.now(), attempt.offset);
        let mut signed = signed::sign(attempt.request, attempt.target, key, self.send_project_id, now);
        if let Some(traceparent) = traceparent {
            signed.headers.insert(traceparent::TRACEPARENT, traceparent);
        }
        let ours = signed.ours(key);
        (signed, ours)
    }

    /// Waits for the answer until the deadline. Of a key in doubt SCM's word is heard, and the place at it kept, even if
    /// the call has given up: at SCM a refusal counts all the same.
    async fn listen<M: RestMethod>(
        &self,
        deadline: Instant,
        begun: &Begun,
        mut exchange: impl Future<Output = Heard<M::Reply>> + Send + Unpin + 'static,
        place: key::Pass,
    ) -> (Result<Heard<M::Reply>, Error>, Option<key::Pass>) {
        if !place.is_in_doubt() {
            let answered = async { timeout_at(deadline, exchange).await.map_err(|_| unanswered(begun.late())) };
            return (self.unless_stopped::<M, _>(begun, answered).await, Some(place));
        }
        let (mut tell, told) = oneshot::channel();
        let (of_task, patience) = (begun.clone(), clock::steady() + self.timeout);
        tokio::spawn(async move {
            let settle = |heard: &Heard<M::Reply>, place: key::Pass| place.settle(key::Verdict::of(&heard.result));
            let answered = tokio::select! {
                biased;
                answered = timeout_at(deadline, &mut exchange) => answered.ok(),
                () = tell.closed() => None, // the caller has gone
            };
            if let Some(heard) = answered {
                if let Err(Ok((heard, place))) = tell.send(Ok((heard, place))) {
                    settle(&heard, place);
                }
                return;
            }
            let _ = tell.send(Err(unanswered(of_task.late())));
            // What was not begun is not sent any more: it would come after what its caller does next.
            if of_task.get()
                && let Ok(heard) = timeout_at(patience, exchange).await
            {
                settle(&heard, place);
            }
        });
        let told = async { told.await.unwrap_or_else(|_| Err(unanswered(begun.late()))) };
        match self.unless_stopped::<M, _>(begun, told).await {
            Ok((heard, place)) => (Ok(heard), Some(place)),
            Err(error) => (Err(error), None),
        }
    }
}

/// What came of a request.
struct Heard<R> {
    /// The answer's headers and when it came, where one did.
    head: Option<(HeaderMap, SystemTime)>,
    result: Result<decode::Decoded<R>, Error>,
}

/// Sends, and reads what comes back.
async fn exchange<M: RestMethod>(
    transport: Arc<Transport>,
    signed: signed::SignedRequest,
    begun: Begun,
    deadline: Instant,
    clock: Clock,
) -> Heard<M::Reply> {
    match transport.send(signed, begun, deadline).await {
        Ok(raw) => {
            let received = clock.now();
            let result = decode::decode::<M>(&raw, received);
            Heard { head: Some((raw.headers, received)), result }
        }
        Err(error) => Heard { head: None, result: Err(unanswered(error)) },
    }
}

/// The same result, but that what SCM calls its code or id is dropped where it is in truth a part of our own key.
fn without<R>(ours: Vec<String>, result: Result<decode::Decoded<R>, Error>) -> Result<decode::Decoded<R>, Error> {
    let is_ours = |text: &mut String| {
        let text = text.to_ascii_lowercase();
        let holds = |whole: &str, part: &str| part.len() >= PART && whole.contains(part);
        ours.iter().any(|ours| holds(&text, ours) || holds(ours, &text))
    };
    match result {
        Ok(mut decoded) => {
            decoded.request_id.take_if(is_ours);
            Ok(decoded)
        }
        Err(mut error) => {
            if let Some(answer) = &mut error.answer {
                answer.request_id.take_if(is_ours);
                answer.code.take_if(is_ours);
            }
            Err(error)
        }
    }
}

/// What it means that no whole answer came.
fn unanswered(error: SendError) -> Error {
    let unsent = |reason| Error::new(reason, Progress::NotSent);
    let told = match error.kind {
        Broken::Connect => unsent(Reason::UpstreamUnavailable),
        Broken::Descriptors => Error::overloaded(error.cause),
        Broken::Tls => unsent(Reason::UpstreamTls),
        Broken::Proxy => unsent(Reason::UpstreamConfiguration),
        Broken::Late { begun: false } => unsent(Reason::Deadline),
        Broken::Late { begun: true } => Error::new(Reason::Deadline, Progress::MaybeSent),
        Broken::Lost(head) => {
            let answer = head.map(|(status, headers)| Box::new(decode::head(status, &headers)));
            Error { answer, ..Error::new(Reason::UpstreamUnavailable, Progress::MaybeSent) }
        }
        Broken::Malformed => Error::new(Reason::UpstreamMalformed, Progress::MaybeSent),
        Broken::TooLarge(status, headers) => Error::answered(Reason::UpstreamTooLarge, decode::head(status, &headers)),
    };
    Error { cause: Some(error.cause), ..told }
}

/// An attempt whose span is open. Dropped before its end, it ends as one that nobody waits for any more.
struct Observed {
    durations: Arc<Durations<Ended>>,
    context: Context,
    to: Destination,
    started: std::time::Instant,
    ended: bool,
}

impl Observed {
    fn start<M: RestMethod>(upstream: &Upstream, attempt: &Attempt<'_>) -> Self {
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

    fn end<R>(mut self, result: &Result<decode::Decoded<R>, Error>) {
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
pub(super) struct Ended {
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

#[cfg(test)]
mod tests {
    use super::{Broken, SendError, unanswered};
    use crate::{
        error::{Progress, Reason},
        upstream::circuit,
    };

    #[test]
    fn a_request_may_have_been_sent_unless_there_was_no_connection() {
        let told = |kind| {
            let error = unanswered(SendError { kind, cause: "" });
            (error.reason, error.progress)
        };
        assert_eq!(told(Broken::Lost(None)), (Reason::UpstreamUnavailable, Progress::MaybeSent));
        assert_eq!(told(Broken::Connect), (Reason::UpstreamUnavailable, Progress::NotSent));
        assert_eq!(told(Broken::Late { begun: true }), (Reason::Deadline, Progress::MaybeSent));
        assert_eq!(told(Broken::Late { begun: false }), (Reason::Deadline, Progress::NotSent));
    }

    #[test]
    fn a_gateway_without_descriptors_says_nothing_against_scm() {
        let error = unanswered(SendError { kind: Broken::Descriptors, cause: "out of file descriptors" });
        assert_eq!((error.reason, error.progress), (Reason::Overloaded, Progress::NotSent));
        assert!(error.retry_after.is_some());
        assert_eq!(circuit::Verdict::of(&Err::<(), _>(error)), circuit::Verdict::Unknown);
    }
}
