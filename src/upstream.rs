//! The way to SCM: one attempt of one call, within the call's deadline.
//!
//! Outermost first: deadline · per-attempt span and `traceparent` (`attempt.rs`) · sign (`signed.rs`) · transport
//! (`transport.rs`). Retry and circuits have their place between deadline and attempt.

use std::sync::Arc;

use tokio::time::timeout_at;

use crate::{
    call::Call,
    clock::{self, Clock},
    config::{self, Project},
    error::{Error, Progress, Reason},
    rest::{RestMethod, UnsignedRequest, decode::Decoded},
    telemetry::Telemetry,
};

mod attempt;
mod signed;
pub mod transport;

/// The client of SCM, one for all calls.
pub struct Upstream {
    transport: transport::Transport,
    telemetry: Arc<Telemetry>,
    clock: Clock,
    timeout: std::time::Duration,
    send_project_id: bool,
}

impl Upstream {
    /// A client as `config` says.
    pub fn new(
        config: &config::Upstream,
        telemetry: Arc<Telemetry>,
        clock: Clock,
    ) -> Result<Self, transport::BuildError> {
        Ok(Self {
            transport: transport::Transport::new(config)?,
            telemetry,
            clock,
            timeout: config.timeout,
            send_project_id: config.send_project_id,
        })
    }

    /// Makes the call. Its budget is the caller's deadline, at most `[upstream] timeout`: when that is over, so is
    /// everything below, and when it is over already, nothing is sent.
    pub async fn call<M: RestMethod>(
        &self,
        request: &UnsignedRequest,
        project: &Project,
        call: &Call,
    ) -> Result<Decoded<M::Reply>, Error> {
        let deadline = call.deadline(self.timeout);
        if deadline <= clock::steady() {
            return Err(Error::new(Reason::Deadline, Progress::NotSent));
        }
        self.attempt::<M>(request, project, call, deadline).await.map_err(|error| Error { attempts: 1, ..error })
    }

    /// Runs `work` until the deadline.
    async fn within<T>(
        deadline: tokio::time::Instant,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        timeout_at(deadline, work).await.unwrap_or_else(|_| Err(Error::new(Reason::Deadline, Progress::MaybeSent)))
    }
}
