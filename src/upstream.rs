//! The way to SCM, within one budget of time.
//!
//! Outermost first: deadline · throttle and circuit of the project (`target.rs`) · repeat (`retry.rs`) · place at the
//! project's key (`key.rs`) · span and `traceparent` of the attempt (`attempt.rs`) · sign (`signed.rs`) · transport
//! (`transport.rs`). A request is signed inside each attempt: no signature is kept.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    call::Call,
    clock::{self, Clock},
    config::{self, Projects},
    error::{Error, Progress, Reason},
    rest::{RestMethod, UnsignedRequest, decode::Decoded},
    telemetry::{Durations, Telemetry},
};

mod attempt;
mod circuit;
mod key;
mod metrics;
mod retry;
mod signed;
mod skew;
pub mod target;
mod throttle;
pub mod transport;

use target::{Target, Targets};

/// The client of SCM, one for all calls.
pub struct Upstream {
    targets: Arc<Targets>,
    transport: Arc<transport::Transport>,
    telemetry: Arc<Telemetry>,
    durations: Arc<Durations<attempt::Ended>>,
    clock: Clock,
    timeout: Duration,
    send_project_id: bool,
    retry: config::Retry,
    budget: retry::Budget,
    stop: CancellationToken,
}

impl Upstream {
    /// A client as `config` says, for so many workers. When `stop` is cancelled, attempts under way are given up.
    pub fn new(
        config: &config::Upstream,
        projects: &Projects,
        telemetry: Arc<Telemetry>,
        clock: Clock,
        workers: usize,
        stop: CancellationToken,
    ) -> Result<Self, transport::BuildError> {
        let targets = Arc::new(Targets::new(projects, &config.circuit));
        metrics::register(&telemetry.meter, &targets);
        Ok(Self {
            targets,
            transport: Arc::new(transport::Transport::new(config, workers)?),
            durations: telemetry.durations("http.client.request.duration", "Duration of a request to SCM, in seconds"),
            telemetry,
            clock,
            timeout: config.timeout,
            send_project_id: config.send_project_id,
            retry: config.retry.clone(),
            budget: retry::Budget::new(clock::steady()),
            stop,
        })
    }

    /// The projects that calls can be made for.
    pub fn targets(&self) -> &Arc<Targets> {
        &self.targets
    }

    /// The connections to SCM.
    pub fn transport(&self) -> &Arc<transport::Transport> {
        &self.transport
    }

    /// Makes the call. Its budget is the caller's deadline, at most `[upstream] timeout`, for everything: waiting for
    /// a place, attempts, pauses. When it is over already, nothing is sent.
    pub async fn call<M: RestMethod>(
        &self,
        request: &UnsignedRequest,
        target: &Target,
        call: &Call,
    ) -> Result<Decoded<M::Reply>, Error> {
        let deadline = call.deadline(self.timeout);
        if deadline <= clock::steady() {
            return Err(Error::too_late("deadline too short"));
        }
        let pass = target.admit()?;
        self.budget.deposit();
        let mut failed = None;
        let result = self.repeat::<M>(request, target, call, deadline, &mut failed).await;
        let before = failed.as_ref().map(circuit::Verdict::from);
        pass.settle(circuit::Verdict::of(&result).or(before));
        result.map_err(|error| retry::told(error, M::IDEMPOTENT))
    }

    /// Attempts until one succeeds or its failure is the answer; `failed` is how the one before it ended.
    async fn repeat<M: RestMethod>(
        &self,
        request: &UnsignedRequest,
        target: &Target,
        call: &Call,
        deadline: tokio::time::Instant,
        failed: &mut Option<Error>,
    ) -> Result<Decoded<M::Reply>, Error> {
        let (mut attempts, mut corrected) = (0, false);
        loop {
            target.skew.look(self.clock.now(), clock::steady(), || target.key.doubt());
            let waited = target.key.admit(deadline).await;
            let place = waited.map_err(|error| Error { attempts, ..error }.after(failed))?;
            // Others may have been told meanwhile to leave SCM alone. What failed before says more than that.
            if let Err(held_back) = target.send() {
                return Err(failed.clone().unwrap_or(Error { attempts, ..held_back }));
            }
            attempts += 1;
            let offset = target.skew.offset();
            let attempt = attempt::Attempt { request, target, call, deadline, number: attempts, offset };
            let error = match self.attempt::<M>(&attempt, place).await {
                Ok(decoded) => return Ok(decoded),
                Err(error) => Error { attempts, ..error }.after(failed),
            };
            // The one exception to "a refused key is never tried again": the clock was wrong, and now it is right.
            if !corrected && error.expired().is_some_and(|told| target.skew.adopt(told, offset)) {
                corrected = true;
                continue;
            }
            match self.retry.pause(&error, M::IDEMPOTENT, &self.budget, clock::steady(), deadline) {
                Some(pause) => {
                    *failed = Some(error);
                    sleep(pause).await;
                }
                None => return Err(error),
            }
        }
    }

    /// Runs `work`, an attempt, until the gateway stops.
    async fn unless_stopped<M: RestMethod, T>(
        &self,
        begun: &transport::Begun,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            result = work => result,
            () = self.stop.cancelled() => Err(match begun.get() {
                false => Error::new(Reason::ShuttingDown, Progress::NotSent),
                true if M::IDEMPOTENT => Error::new(Reason::ShuttingDown, Progress::MaybeSent),
                true => Error::new(Reason::UpstreamOutcomeUnknown, Progress::MaybeSent),
            }),
        }
    }
}
