//! The script: what the next requests get instead of, or before, the usual treatment.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

/// What happens to one request. Each step is used up by the next request that has arrived whole; its
/// signature is verified, and it is journaled or counted as refused, whatever the step says.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Step {
    /// Behave normally.
    Serve,
    /// Send this answer; nothing is stored.
    Reply(Reply),
    /// Write these bytes as they are and close the connection.
    Raw(Vec<u8>),
    /// Close the connection without an answer.
    Close,
    /// Reset the connection (RST instead of FIN).
    Reset,
    /// Hold the connection and answer nothing until the client goes away.
    Hang,
    /// Wait for the gate, then behave normally, even if the client has gone away meanwhile. Open it with
    /// `notify_one`, which also counts when nobody waits yet.
    HangThenServe(Arc<Notify>),
}

/// One HTTP answer. `Content-Length` is added unless a header of it sets it or `Transfer-Encoding`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The header lines, in order.
    pub headers: Vec<(String, String)>,
    /// The content.
    pub body: Vec<u8>,
}

impl Reply {
    /// An answer with neither headers nor content.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// An answer of `Content-Type: application/json`.
    #[must_use]
    pub fn json(status: u16, body: &str) -> Self {
        Self::new(status).header("Content-Type", "application/json").body(body)
    }

    /// Adds a header line.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the content.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name))
    }
}

/// The queue of steps.
#[derive(Debug, Default)]
pub(crate) struct Script(Mutex<VecDeque<Step>>);

impl Script {
    pub(crate) fn push(&self, steps: impl IntoIterator<Item = Step>) {
        self.steps().extend(steps);
    }

    /// The step of the request that has just arrived; without one it is served.
    pub(crate) fn next(&self) -> Step {
        self.steps().pop_front().unwrap_or(Step::Serve)
    }

    pub(crate) fn len(&self) -> usize {
        self.steps().len()
    }

    fn steps(&self) -> std::sync::MutexGuard<'_, VecDeque<Step>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}
