//! One attempt: signs a request, sends it, and records what the response says.

use std::{
    panic::resume_unwind,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::future::Either;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use super::{
    CallOptions, Upstream,
    breaker::HandOver,
    clock_skew,
    project::Project,
    retry::RetryState,
    transport::{OutgoingRequest, SendError, SendErrorKind, Transport, WriteStarted},
};
use crate::{
    clock::{self, Clock},
    error::{Error, Progress, Reason},
    ops::telemetry::traceparent,
    scm::{
        api::{Decoded, Method, UnsignedRequest, decode},
        credentials::SigningPermit,
        sign::signed_request::{self, KeyMaterial},
    },
};

mod span;

pub(super) use span::AttemptOutcome;
use span::AttemptSpan;

/// The input of one attempt.
pub(super) struct Attempt<'a> {
    pub(super) request: &'a UnsignedRequest,
    pub(super) project: &'a Arc<Project>,
    pub(super) options: &'a CallOptions<'a>,
    /// The first attempt of a call is 1.
    pub(super) number: u32,
    /// Seconds added to the local clock.
    pub(super) clock_offset: i64,
    pub(super) started: Instant,
    /// Whether the call is the probe of an open circuit.
    pub(super) is_probe: bool,
    /// Set if the response is needed even if the caller has gone: for the trust in the credentials, or for the circuit.
    pub(super) hand_over: Option<HandOver>,
}

impl Upstream {
    /// Makes one attempt.
    pub(super) async fn attempt(
        &self,
        attempt: &Attempt<'_>,
        permit: SigningPermit,
        retry: &mut RetryState<'_>,
    ) -> Result<Decoded, Error> {
        let Attempt { request, project, options, .. } = *attempt;
        let span = AttemptSpan::start(self, attempt);
        let now = clock_skew::corrected(self.clock.now(), attempt.clock_offset);
        let mut signed = signed_request::sign(
            request,
            &project.endpoint,
            self.send_project_id.then(|| project.scope(request.method)),
            permit.credentials(),
            now,
        );
        if let Some(traceparent) = traceparent::header(&span.context) {
            signed.headers.insert(&traceparent::TRACEPARENT, traceparent);
        }
        let key_material = signed.key_material(permit.credentials());
        let result = match self.transport.prepare(&project.endpoint, signed) {
            Err(error) => Err(classify_send_error(error)),
            Ok((request, write_started, pool_use)) => {
                let exchange = Exchange {
                    transport: self.transport.clone(),
                    project: project.clone(),
                    clock: self.clock.clone(),
                    method: attempt.request.method,
                    deadline: options.deadline,
                    permit,
                    key_material,
                };
                // Boxed, because the future is large and would be copied into each future around it.
                let exchange = Box::pin(exchange.run(request));
                let mut exchange = match &attempt.hand_over {
                    Some(hand_over) => {
                        let limit = self.limit(attempt);
                        Either::Left(Detachable::spawn(exchange, attempt, hand_over.clone(), &write_started, limit))
                    }
                    None => Either::Right(exchange),
                };
                let response = async {
                    let timeout = retry.attempt_timeout(attempt.started);
                    let until = timeout.unwrap_or(options.deadline);
                    let mut response = timeout_at(until, &mut exchange).await;
                    if response.is_err() && timeout.is_some() {
                        if retry.reserve() {
                            if let Either::Left(task) = &mut exchange {
                                task.abort();
                            }
                            self.transport.discard_if_silent(&pool_use);
                            return Err(attempt_timeout(write_started.get()));
                        }
                        response = timeout_at(options.deadline, &mut exchange).await;
                    }
                    response.unwrap_or_else(|_| Err(deadline_exceeded(&write_started)))
                };
                self.until_shutdown(attempt.request.method.idempotent, &write_started, response).await
            }
        };
        span.end(&result);
        result
    }

    /// Returns until when the response is awaited whose outcome matters beyond the call.
    fn limit(&self, attempt: &Attempt<'_>) -> Instant {
        if attempt.request.method.idempotent {
            (attempt.started + self.retry.attempt_timeout.min(self.timeout)).max(attempt.options.deadline)
        } else {
            attempt.started + self.timeout
        }
    }

    /// Runs `response` until the gateway aborts the calls in flight.
    async fn until_shutdown(
        &self,
        idempotent: bool,
        write_started: &WriteStarted,
        response: impl Future<Output = Result<Decoded, Error>>,
    ) -> Result<Decoded, Error> {
        tokio::select! {
            biased;
            result = response => result,
            () = self.shutdown.cancelled() => Err(match write_started.get() {
                false => Error::new(Reason::ShuttingDown, Progress::NotSent),
                true if idempotent => Error::new(Reason::ShuttingDown, Progress::MaybeSent),
                true => Error {
                    cause: Some("shutting down"),
                    ..Error::new(Reason::UpstreamOutcomeUnknown, Progress::MaybeSent)
                },
            }),
        }
    }
}

/// A signed request, with the permit that it was signed with.
struct Exchange {
    transport: Arc<Transport>,
    project: Arc<Project>,
    clock: Clock,
    method: &'static Method,
    /// The deadline of the call.
    deadline: Instant,
    permit: SigningPermit,
    key_material: KeyMaterial,
}

impl Exchange {
    /// Sends the request, reads the response, and records the result before the permit is released.
    async fn run(self, request: OutgoingRequest) -> Result<Decoded, Error> {
        let _throttle_guard = self.project.throttle.attempt();
        let sent = self.transport.send(request, self.deadline).await;
        let result = match sent {
            Ok(raw) => {
                let received = self.clock.now();
                self.project.clock_skew.observe(&raw.headers, received);
                self.redact((self.method.decode)(&raw, received))
            }
            Err(error) => self.redact(Err(classify_send_error(error))),
        };
        // Before the permit is released, so that a call that waits for it sees the offset and the cooldown.
        if let Err(error) = &result
            && let Some(measured) = error.clock_skew()
        {
            self.project.clock_skew.set_offset(measured);
        }
        self.project.throttle.record(&result);
        self.permit.record_result(&result);
        result
    }

    /// Removes a request id or error code that overlaps with the key material.
    fn redact(&self, mut result: Result<Decoded, Error>) -> Result<Decoded, Error> {
        let mut is_key_material = |text: &mut String| self.key_material.overlaps(text);
        match &mut result {
            Ok(decoded) => {
                decoded.request_id.take_if(&mut is_key_material);
            }
            Err(Error { answer: Some(answer), .. }) => {
                answer.request_id.take_if(&mut is_key_material);
                answer.code.take_if(&mut is_key_material);
            }
            Err(_) => {}
        }
        result
    }
}

/// An exchange in a task of its own, because its outcome matters beyond the call.
///
/// After the caller has gone or its deadline is exceeded, the task keeps waiting for the response, holds the signing permit
/// until then, because SCM counts a rejection either way, and tells the circuit breaker. A request whose write has not
/// started is not sent, because it could overwrite a later call of the same caller.
struct Detachable {
    task: JoinHandle<Result<Decoded, Error>>,
    write_started: WriteStarted,
    hand_over: HandOver,
}

impl Detachable {
    /// Runs an exchange until the limit.
    fn spawn(
        exchange: impl Future<Output = Result<Decoded, Error>> + Send + 'static,
        attempt: &Attempt<'_>,
        hand_over: HandOver,
        write_started: &WriteStarted,
        limit: Instant,
    ) -> Self {
        let (project, started, is_probe) = (attempt.project.clone(), attempt.started, attempt.is_probe);
        let method = attempt.request.method;
        let task = {
            let (hand_over, write_started) = (hand_over.clone(), write_started.clone());
            tokio::spawn(async move {
                let result = timeout_at(limit, exchange).await;
                let result = result.unwrap_or_else(|_| Err(deadline_exceeded(&write_started)));
                if hand_over.is_set() {
                    project.breaker.record_late(method, is_probe, &result, clock::monotonic() - started);
                }
                result
            })
        };
        Self { task, write_started: write_started.clone(), hand_over }
    }

    /// Ends the exchange.
    fn abort(&mut self) {
        self.task.abort();
    }
}

impl Future for Detachable {
    type Output = Result<Decoded, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(Pin::new(&mut self.task).poll(cx)) {
            Ok(result) => result,
            Err(panic) if panic.is_panic() => resume_unwind(panic.into_panic()),
            Err(_) => Err(deadline_exceeded(&self.write_started)),
        })
    }
}

impl Drop for Detachable {
    fn drop(&mut self) {
        if self.task.is_finished() {
            return;
        }
        if self.write_started.get() {
            self.hand_over.set();
        } else {
            self.task.abort();
        }
    }
}

/// Returns the error of an attempt at the deadline of its call.
fn deadline_exceeded(write_started: &WriteStarted) -> Error {
    classify_send_error(write_started.timeout_error())
}

/// Returns the error of an attempt that took longer than `upstream.attempt_timeout`, before the deadline of the call.
fn attempt_timeout(sent: bool) -> Error {
    if sent {
        let cause = Some("no response within attempt_timeout");
        Error { cause, ..Error::new(Reason::UpstreamTimeout, Progress::MaybeSent) }
    } else {
        let cause = Some("no connection within attempt_timeout");
        Error { cause, ..Error::new(Reason::UpstreamUnavailable, Progress::NotSent) }
    }
}

/// Converts a failure to get a whole response into the error of the attempt.
fn classify_send_error(error: SendError) -> Error {
    let unsent = |reason| Error::new(reason, Progress::NotSent);
    let classified = match error.kind {
        SendErrorKind::Url => unsent(Reason::InvalidRequest),
        SendErrorKind::Connect => unsent(Reason::UpstreamUnavailable),
        SendErrorKind::FileLimit => Error::overloaded(error.cause),
        SendErrorKind::Tls => unsent(Reason::UpstreamTls),
        SendErrorKind::Proxy => unsent(Reason::UpstreamConfiguration),
        SendErrorKind::Timeout { sent: false } => unsent(Reason::Deadline),
        SendErrorKind::Timeout { sent: true } => Error::new(Reason::Deadline, Progress::MaybeSent),
        SendErrorKind::ConnectionLost(head) => {
            let answer = head.map(|head| Box::new(decode::head(head.0, &head.1)));
            Error { answer, ..Error::new(Reason::UpstreamUnavailable, Progress::MaybeSent) }
        }
        SendErrorKind::Malformed => Error::new(Reason::UpstreamMalformed, Progress::MaybeSent),
        SendErrorKind::TooLarge(head) => Error::answered(Reason::UpstreamTooLarge, decode::head(head.0, &head.1)),
    };
    Error { cause: Some(error.cause), ..classified }
}

#[cfg(test)]
mod tests {
    use super::{
        super::breaker::Outcome,
        {SendError, SendErrorKind, classify_send_error},
    };
    use crate::error::{Progress, Reason};

    #[test]
    fn a_request_may_have_been_sent_once_its_write_started() {
        let classify = |kind| {
            let error = classify_send_error(SendError { kind, cause: "" });
            (error.reason, error.progress)
        };
        let lost = SendErrorKind::ConnectionLost(None);
        assert_eq!(classify(lost), (Reason::UpstreamUnavailable, Progress::MaybeSent));
        assert_eq!(classify(SendErrorKind::Connect), (Reason::UpstreamUnavailable, Progress::NotSent));
        assert_eq!(classify(SendErrorKind::Url), (Reason::InvalidRequest, Progress::NotSent));
        assert_eq!(classify(SendErrorKind::Timeout { sent: true }), (Reason::Deadline, Progress::MaybeSent));
        assert_eq!(classify(SendErrorKind::Timeout { sent: false }), (Reason::Deadline, Progress::NotSent));
    }

    #[test]
    fn a_file_limit_does_not_count_against_scm() {
        let error = classify_send_error(SendError { kind: SendErrorKind::FileLimit, cause: "out of file descriptors" });
        assert_eq!((error.reason, error.progress), (Reason::Overloaded, Progress::NotSent));
        assert!(error.retry_after.is_some());
        assert_eq!(Outcome::of(&Err::<(), _>(error)), Outcome::Ignored);
    }
}
