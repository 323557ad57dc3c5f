//! What accompanies one call through the house beside its message: arrival, deadline, trace, outcome.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use opentelemetry::Context;
use tokio::time::Instant;
use tonic::Status;

use crate::{caller::Caller, clock, error::Error, status};

/// Kept back from every deadline, so that the caller still gets our answer and not its own time-out.
const TO_ANSWER: Duration = Duration::from_millis(20);

/// One call. The edge makes it, the service and the upstream read it.
#[derive(Debug)]
pub struct Call {
    arrived: Instant,
    context: Context,
    caller: Caller,
    timeout: OnceLock<Duration>,
    subject: OnceLock<Subject>,
    upstream_request_id: OnceLock<String>,
    failure: OnceLock<Error>,
}

/// What a call is about, as far as it can be told: ids that may be written down.
#[derive(Debug)]
pub struct Subject {
    /// One of the configured projects.
    pub project_id: Option<Arc<str>>,
    /// What has the form of a certificate's id.
    pub cert_id: Option<String>,
}

impl Call {
    /// A call of this caller that arrived at this time, and the context of its server span.
    pub fn new(arrived: Instant, context: Context, caller: Caller) -> Self {
        Self {
            arrived,
            context,
            caller,
            timeout: OnceLock::new(),
            subject: OnceLock::new(),
            upstream_request_id: OnceLock::new(),
            failure: OnceLock::new(),
        }
    }

    /// Notes the time that the caller gives.
    pub fn set_timeout(&self, timeout: Duration) {
        let _ = self.timeout.set(timeout);
    }

    /// The context of the server span: parent of what the call does.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Who calls.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// When the answer has to stand at the latest: the caller's time, at most `cap`, less what answering takes.
    pub fn deadline(&self, cap: Duration) -> Instant {
        self.arrived + self.timeout.get().map_or(cap, |timeout| cap.min(*timeout)).saturating_sub(TO_ANSWER)
    }

    /// Notes what the call is about.
    pub fn is_about(&self, subject: Subject) {
        let _ = self.subject.set(subject);
    }

    /// What the call is about, once its message has come.
    pub fn subject(&self) -> Option<&Subject> {
        self.subject.get()
    }

    /// Notes SCM's id of the request that succeeded.
    pub fn succeeded(&self, upstream_request_id: Option<&str>) {
        if let Some(id) = upstream_request_id {
            let _ = self.upstream_request_id.set(id.to_owned());
        }
    }

    /// SCM's id of the request, of a success or of the failure.
    pub fn upstream_request_id(&self) -> Option<&str> {
        let of_failure = || self.failure()?.answer.as_ref()?.request_id.as_deref();
        self.upstream_request_id.get().map(String::as_str).or_else(of_failure)
    }

    /// Notes how the call failed, for span, metric and log, and renders that for the caller. The first failure stays
    /// noted.
    pub fn fail(&self, error: Error) -> Status {
        let _ = self.failure.set(error.clone());
        let wait = error.retry_after;
        let mut status = status::render(error);
        if let Some(wait) = wait {
            status::push_back(&mut status, wait, self.left());
        }
        status
    }

    /// What is left of the time that the caller gives.
    fn left(&self) -> Option<Duration> {
        self.timeout.get().map(|timeout| (self.arrived + *timeout).saturating_duration_since(clock::steady()))
    }

    /// How the call failed, if it did and we know.
    pub fn failure(&self) -> Option<&Error> {
        self.failure.get()
    }
}
