//! The script: what the next requests get instead of, or before, the usual treatment.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

/// What happens to one request. Each step is used up by the next request that has arrived whole; its
/// signature is verified, and it is journaled or counted as refused, whatever the step says. Only
/// [`CloseUnread`](Self::CloseUnread) does not wait for that.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Step {
    /// Behave normally.
    Serve,
    /// Send this answer; nothing is stored.
    Reply(Reply),
    /// Write these bytes as they are and close the connection.
    Raw(Vec<u8>),
    /// Write these bytes as they are, and then do this with the connection.
    RawThen(Vec<u8>, Then),
    /// Write the head at once and of the bytes one at a time, then close the connection.
    Drip {
        /// What comes at once.
        head: Vec<u8>,
        /// What drips.
        bytes: Vec<u8>,
        /// The time before each byte.
        every: Duration,
    },
    /// Write the head once and then the chunk again and again until the client goes away.
    Endless {
        /// What comes once.
        head: Vec<u8>,
        /// What never ends.
        chunk: Vec<u8>,
    },
    /// Close the connection without an answer.
    Close,
    /// Close the connection as soon as the next request begins, without reading it: it is not counted.
    CloseUnread,
    /// Reset the connection (RST instead of FIN).
    Reset,
    /// Hold the connection and answer nothing until the client goes away.
    Hang,
    /// Wait for the gate, then behave normally, even if the client has gone away meanwhile. Open it with
    /// `notify_one`, which also counts when nobody waits yet.
    HangThenServe(Arc<Notify>),
}

/// What becomes of a connection after [`Step::RawThen`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It is closed, without a farewell of TLS.
    Cut,
    /// It is reset, as soon as the bytes are on their way: many of them may be lost.
    Reset,
    /// Nothing more comes until the client goes away.
    Hang,
    /// It takes the next request.
    KeepAlive,
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

    /// The step of the request that has just arrived; without one it is served. It has been read: one that is not to be
    /// is left to the next.
    pub(crate) fn next(&self) -> Step {
        let mut steps = self.steps();
        let next = steps.iter().position(|step| !matches!(step, Step::CloseUnread));
        next.and_then(|at| steps.remove(at)).unwrap_or(Step::Serve)
    }

    /// Whether the request that begins is not to be read.
    pub(crate) fn closes_unread(&self) -> bool {
        let mut steps = self.steps();
        let closes = matches!(steps.front(), Some(Step::CloseUnread));
        if closes {
            steps.pop_front();
        }
        closes
    }

    pub(crate) fn len(&self) -> usize {
        self.steps().len()
    }

    fn steps(&self) -> std::sync::MutexGuard<'_, VecDeque<Step>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::{Script, Step};

    #[test]
    fn a_request_that_was_read_leaves_the_step_of_an_unread_one_to_the_next() {
        let script = Script::default();
        script.push([Step::Serve, Step::CloseUnread, Step::Reset]);
        assert!(!script.closes_unread() && !script.closes_unread(), "two begin at the same time");
        assert!(matches!((script.next(), script.next()), (Step::Serve, Step::Reset)));
        assert!(script.closes_unread());
        assert_eq!(script.len(), 0);
    }
}
