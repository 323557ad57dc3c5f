//! What accompanies one call through the house beside its message: arrival, deadline, trace, outcome.

use std::{sync::OnceLock, time::Duration};

use opentelemetry::Context;
use tokio::time::Instant;

use crate::{caller::Caller, error::Error};

/// Kept back from every deadline, so that the caller still gets our answer and not its own time-out.
const TO_ANSWER: Duration = Duration::from_millis(20);

/// One call. The edge makes it, the service and the upstream read it.
#[derive(Debug)]
pub struct Call {
    arrived: Instant,
    context: Context,
    caller: Caller,
    timeout: OnceLock<Duration>,
    failure: OnceLock<Error>,
}

impl Call {
    /// A call of this caller that arrived at this time, and the context of its server span.
    pub fn new(arrived: Instant, context: Context, caller: Caller) -> Self {
        Self { arrived, context, caller, timeout: OnceLock::new(), failure: OnceLock::new() }
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

    /// Notes how the call failed, for span, metric and log. The first failure stays.
    pub fn failed(&self, error: &Error) {
        let _ = self.failure.set(error.clone());
    }

    /// How the call failed, if it did and we know.
    pub fn failure(&self) -> Option<&Error> {
        self.failure.get()
    }
}
