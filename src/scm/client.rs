//! The client of SCM: the outbound stack around each call.
//!
//! Outermost first: deadline, throttle and circuit breaker of the project (`project.rs`), retry (`retry.rs`), signing
//! permit (`credentials.rs`), span and `traceparent` of the attempt (`attempt.rs`), signature (`sign/`), transport
//! (`transport.rs`). Each attempt signs the request again, so no signature is kept.
//!
//! Nothing here is generic over the RPC: everything works on [`UnsignedRequest`] and [`Decoded`].

use std::{sync::Arc, time::Duration};

use opentelemetry::Context;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::api::{Decoded, Method, UnsignedRequest};
use crate::{
    clock::{self, Clock},
    config,
    error::{Error, Reason},
    ops::telemetry::{DurationHistogram, Telemetry},
};

mod attempt;
mod breaker;
pub(super) mod clock_skew;
mod last_error;
mod metrics;
pub mod project;
mod response_time;
mod retry;
mod throttle;
pub mod transport;

use attempt::{Attempt, AttemptOutcome};
use breaker::{BreakerPermit, HandOver};
use metrics::RetryMetrics;
use project::{Project, Projects};
use retry::{Budget, Decision, RetryState, Signature};
use transport::Transport;

/// The client of SCM. All calls share one.
pub struct Upstream {
    projects: Arc<Projects>,
    transport: Arc<Transport>,
    telemetry: Arc<Telemetry>,
    durations: Arc<DurationHistogram<AttemptOutcome>>,
    clock: Clock,
    timeout: Duration,
    send_project_id: bool,
    retry: config::Retry,
    budget: Arc<Budget>,
    retries: RetryMetrics,
    shutdown: CancellationToken,
}

/// What the caller of [`Upstream::call`] decides for one call.
pub struct CallOptions<'a> {
    /// When the result has to be known: the limit for permits, attempts and backoff together.
    pub deadline: Instant,
    /// The span that the attempts' spans belong to.
    pub parent: &'a Context,
}

impl Upstream {
    /// Creates a client for `workers` worker threads. Cancelling `shutdown` aborts the attempts in flight.
    pub fn new(
        config: &config::Upstream,
        projects: &config::Projects,
        telemetry: Arc<Telemetry>,
        clock: Clock,
        workers: usize,
        shutdown: CancellationToken,
    ) -> Result<Self, transport::BuildError> {
        let projects = Arc::new(Projects::new(projects, config));
        metrics::register_metrics(&telemetry.meter, &projects);
        let budget = Arc::new(Budget::new());
        Ok(Self {
            retries: RetryMetrics::new(&telemetry.meter, &projects, budget.clone()),
            projects,
            transport: Arc::new(Transport::new(config, workers)?),
            durations: telemetry.durations("http.client.request.duration", "Duration of a request to SCM, in seconds"),
            telemetry,
            clock,
            timeout: config.timeout,
            send_project_id: config.send_project_id,
            retry: config.retry.clone(),
            budget,
            shutdown,
        })
    }

    /// Returns the projects that calls can be made for.
    pub fn projects(&self) -> &Arc<Projects> {
        &self.projects
    }

    /// Returns the transport, for reloads of its trust roots.
    pub fn transport(&self) -> &Arc<Transport> {
        &self.transport
    }

    /// Returns `[upstream] timeout`, the limit of every call.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sends a request to SCM, with retries. Sends nothing after the deadline.
    pub async fn call(
        &self,
        request: &UnsignedRequest,
        project: &Arc<Project>,
        options: &CallOptions<'_>,
    ) -> Result<Decoded, Error> {
        let now = clock::monotonic();
        if options.deadline <= now {
            return Err(Error::deadline_before_send("deadline too short"));
        }
        let mut permit = project.try_acquire(request.method, now)?;
        self.budget.deposit(now);
        let idempotent = request.method.idempotent;
        let mut retry = RetryState::new(&self.retry, &self.budget, idempotent, options.deadline);
        let result = self.retry_loop(request, project, options, &mut retry, &mut permit).await;
        result.map_err(|error| retry::finalize(error, idempotent))
    }

    /// Makes attempts until one succeeds or its failure is final.
    async fn retry_loop(
        &self,
        request: &UnsignedRequest,
        project: &Arc<Project>,
        options: &CallOptions<'_>,
        retry: &mut RetryState<'_>,
        breaker: &mut BreakerPermit<'_>,
    ) -> Result<Decoded, Error> {
        let mut previous = None;
        let mut accepted = None;
        loop {
            let now = self.clock.now();
            project.clock_skew.check_for_jump(now, clock::monotonic(), || project.credentials.reverify());
            let on_wait = || breaker.start_attempt(clock::monotonic(), None); // SCM does not answer the other request
            let permit = match accepted.take() {
                Some(permit) => Ok(permit),
                None => project.credentials.permit(options.deadline, on_wait).await,
            };
            let permit = permit.map_err(|error| retry.give_up(error)).inspect_err(|error| breaker.end_wait(error))?;
            // A cooldown may have started during the wait. The failure of a previous attempt says more than the cooldown.
            project.try_send().map_err(|throttled| retry.previous_or(throttled))?;
            let number = retry.start_attempt();
            if let Some(reason) = previous {
                self.retries.count(project, reason);
            }
            let clock_offset = project.clock_skew.offset();
            let signature = Signature { clock_offset, is_trial: permit.is_trial() };
            let started = clock::monotonic();
            let is_probe = breaker.is_probe();
            let hand_over = (is_probe || permit.is_unverified()).then(HandOver::default);
            breaker.start_attempt(started, hand_over.clone());
            let attempt = Attempt { request, project, options, number, clock_offset, started, is_probe, hand_over };
            let result = self.attempt(&attempt, permit, retry).await;
            breaker.end_attempt(&result);
            let error = match result {
                Ok(decoded) => return Ok(Decoded { attempts: number, ..decoded }),
                Err(error) if is_deleted_by_earlier_attempt(request.method, &error, retry) => {
                    return Ok(deleted(request.method, error, number));
                }
                Err(error) => error,
            };
            previous = Some(error.reason);
            match retry.fail(error, signature) {
                Decision::Retry(backoff) => sleep(backoff).await,
                Decision::Resign => {}
                Decision::SignWithAccepted(error) => {
                    previous = Some(Reason::UpstreamCredentials);
                    accepted = Some(project.credentials.permit_of_accepted(options.deadline).await.ok_or(error)?);
                }
                Decision::GiveUp(error) => return Err(error),
            }
        }
    }
}

/// Returns whether the resource is gone because an earlier attempt of the same call deleted it.
fn is_deleted_by_earlier_attempt(method: &Method, error: &Error, retry: &RetryState<'_>) -> bool {
    let is_not_found = matches!(error.reason, Reason::CertificateNotFound | Reason::ResourceNotFound);
    method.http == http::Method::DELETE && is_not_found && retry.may_have_been_carried_out()
}

/// Returns the success of a deletion that an earlier attempt has carried out.
fn deleted(method: &Method, error: Error, attempts: u32) -> Decoded {
    let request_id = error.answer.and_then(|answer| answer.request_id);
    Decoded { reply: (method.empty)(), http_status: 404, attempts, request_id }
}

#[cfg(test)]
mod tests;
