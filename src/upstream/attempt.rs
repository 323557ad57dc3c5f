//! One attempt: its CLIENT span, its signature, its judgement.

use std::{sync::Arc, time::SystemTime};

use http::{HeaderMap, HeaderValue};
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
    telemetry::traceparent,
};

mod observed;

pub(super) use observed::Ended;
use observed::Observed;

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
