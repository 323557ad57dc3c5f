//! The context of one call: its arrival, its deadline, its caller, its trace, whether it is a dry run, and the resource that
//! it names.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use opentelemetry::Context;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{auth::Caller, dry_run::DryRun, limit::watches::WatchPermit};
use crate::{clock, error::Error};

/// Kept back from every deadline, so that the caller gets the gateway's response instead of a timeout of its own.
const RESPONSE_MARGIN: Duration = Duration::from_millis(20);

/// The context of a call. The trace layer creates it, and every layer inside can read it.
#[derive(Debug)]
pub struct CallContext {
    arrived: Instant,
    trace: Context,
    caller: Caller,
    dry_run: DryRun,
    timeout: OnceLock<Duration>,
    resource: OnceLock<Resource>,
    retried: OnceLock<Retried>,
    /// Why the stream of responses has ended. tonic would drop the error on its way to the layers.
    stream_error: OnceLock<Box<Error>>,
}

/// Marks the response of an RPC that streams, for layers that follow the stream to its end.
#[derive(Clone)]
pub(super) struct Streamed {
    pub(super) call: Arc<CallContext>,
    /// Returned when HTTP/2 has taken the whole response, and not already when the stream ends.
    _permit: Arc<WatchPermit>,
}

impl Streamed {
    /// Creates the mark of a call with its permit.
    pub(super) fn new(call: Arc<CallContext>, permit: WatchPermit) -> Self {
        Self { call, _permit: Arc::new(permit) }
    }
}

/// Cancelled when the connection of a request starts to drain. Only requests of RPCs that stream have this extension.
#[derive(Debug, Clone)]
pub(super) struct Draining(pub(super) CancellationToken);

/// A success after retries.
#[derive(Debug)]
pub struct Retried {
    /// The number of attempts.
    pub attempts: u32,
    /// The HTTP status of the last one.
    pub http_status: u16,
}

/// The ids that a request names, as far as they may be logged.
#[derive(Debug)]
pub struct Resource {
    /// One of the configured projects.
    pub project_id: Option<Arc<str>>,
    /// The path variable that names the resource, and an id of the right form.
    pub id: Option<(&'static str, Box<str>)>,
}

impl CallContext {
    /// Creates the context of a call. `trace` has the SERVER span.
    pub fn new(arrived: Instant, trace: Context, caller: Caller, dry_run: DryRun) -> Self {
        Self {
            arrived,
            trace,
            caller,
            dry_run,
            timeout: OnceLock::new(),
            resource: OnceLock::new(),
            retried: OnceLock::new(),
            stream_error: OnceLock::new(),
        }
    }

    /// Returns the context of a request that has passed the trace layer.
    ///
    /// # Panics
    ///
    /// If it has not.
    pub fn of(extensions: &http::Extensions) -> &Arc<Self> {
        extensions.get().expect("the trace layer adds a context to every request")
    }

    /// Stores the timeout that the caller sent.
    pub fn set_timeout(&self, timeout: Duration) {
        let _ = self.timeout.set(timeout);
    }

    /// Returns the trace context with the SERVER span, the parent of the attempts' spans.
    pub fn trace(&self) -> &Context {
        &self.trace
    }

    /// Returns the caller.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Returns whether the caller asks for a dry run.
    pub fn dry_run(&self) -> DryRun {
        self.dry_run
    }

    /// Returns the time since the call has arrived.
    pub fn elapsed(&self) -> Duration {
        clock::monotonic() - self.arrived
    }

    /// Returns when the result has to be known: after the caller's timeout, at most `max`, less the response margin.
    pub fn deadline(&self, max: Duration) -> Instant {
        let timeout = self.timeout.get().map_or(max, |timeout| max.min(*timeout));
        self.arrived + timeout.saturating_sub(RESPONSE_MARGIN)
    }

    /// Returns when the caller stops waiting, less the response margin, if the caller sent a timeout.
    pub fn caller_deadline(&self) -> Option<Instant> {
        self.timeout.get().map(|timeout| self.arrived + timeout.saturating_sub(RESPONSE_MARGIN))
    }

    /// Stores the error that ends the stream of responses. The render layer puts it into the trailers.
    pub fn set_stream_error(&self, error: Error) {
        let _ = self.stream_error.set(Box::new(error));
    }

    /// Returns the error that has ended the stream of responses.
    pub fn stream_error(&self) -> Option<&Error> {
        self.stream_error.get().map(AsRef::as_ref)
    }

    /// Stores that the call succeeded after retries.
    pub fn set_retried(&self, retried: Retried) {
        let _ = self.retried.set(retried);
    }

    /// Returns the retries of a success.
    pub fn retried(&self) -> Option<&Retried> {
        self.retried.get()
    }

    /// Stores the resource that the request names.
    pub fn set_resource(&self, resource: Resource) {
        let _ = self.resource.set(resource);
    }

    /// Returns the resource that the request names, once the request is complete.
    pub fn resource(&self) -> Option<&Resource> {
        self.resource.get()
    }

    /// Returns the rest of the caller's timeout, if the caller sent one.
    pub fn remaining(&self) -> Option<Duration> {
        self.timeout.get().map(|timeout| (self.arrived + *timeout).saturating_duration_since(clock::monotonic()))
    }
}
