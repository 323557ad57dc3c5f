//! The script: steps that replace or delay the regular response to the next requests.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;

use crate::credentials::Issue;

/// What happens to one request. Each complete request uses one step. Its signature is verified and recorded
/// whatever the step is. Only [`CloseUnread`](Self::CloseUnread) applies before the request is read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Step {
    /// Serve the request regularly.
    Serve,
    /// Send this response and store nothing.
    Reply(Reply),
    /// Serve the request, but with other credentials than usual. SCM, which issues none, serves it regularly.
    Issue(Issue),
    /// Write these bytes unchanged and close the connection.
    Raw(Vec<u8>),
    /// Write these bytes unchanged, then do this with the connection.
    RawThen(Vec<u8>, Then),
    /// Write the head at once and the bytes one at a time, then close the connection.
    Drip {
        /// The bytes written at once.
        head: Vec<u8>,
        /// The bytes written one at a time.
        bytes: Vec<u8>,
        /// The delay before each byte.
        every: Duration,
    },
    /// Write the head once, and then the chunk again and again until the client disconnects.
    Endless {
        /// The bytes written once.
        head: Vec<u8>,
        /// The bytes written without end.
        chunk: Vec<u8>,
    },
    /// Close the connection without a response.
    Close,
    /// Close the connection when the next request starts, without reading or counting the request.
    CloseUnread,
    /// Reset the connection (RST instead of FIN).
    Reset,
    /// Send nothing until the client disconnects.
    Hang,
    /// Wait for the gate, then serve the request, even if the client has disconnected. Open the gate with
    /// `notify_one`, which also works before the request waits.
    HangThenServe(Arc<Notify>),
}

/// What happens to a connection after [`Step::RawThen`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It is closed without TLS's close_notify.
    Cut,
    /// It is reset immediately after the write, so many of the bytes may be lost.
    Reset,
    /// It stays open, without further bytes, until the client disconnects.
    Hang,
    /// It accepts the next request.
    KeepAlive,
}

/// An HTTP response. `Content-Length` is added unless a header sets it or `Transfer-Encoding`.
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
    /// Creates a response without headers and content.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// Creates a response with `Content-Type: application/json`.
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

/// The queue of steps, and the steps of keys: ids and operations.
#[derive(Debug, Default)]
pub(crate) struct Script {
    steps: Mutex<VecDeque<Step>>,
    of_keys: Mutex<HashMap<String, Step>>,
    /// The steps of keys that stay.
    standing: Mutex<HashMap<String, Step>>,
}

impl Script {
    /// Creates a script with the steps of keys that stay.
    pub(crate) fn new(standing: impl IntoIterator<Item = (String, Step)>) -> Self {
        Self { standing: Mutex::new(standing.into_iter().collect()), ..Self::default() }
    }

    pub(crate) fn push(&self, steps: impl IntoIterator<Item = Step>) {
        self.steps().extend(steps);
    }

    /// Returns the step of a complete request, or [`Step::Serve`]. A [`Step::CloseUnread`] stays for the next request,
    /// because this one has been read.
    pub(crate) fn next(&self) -> Step {
        let mut steps = self.steps();
        let next = steps.iter().position(|step| !matches!(step, Step::CloseUnread));
        next.and_then(|at| steps.remove(at)).unwrap_or(Step::Serve)
    }

    /// Returns whether the connection is closed without reading the request that starts.
    pub(crate) fn closes_unread(&self) -> bool {
        let mut steps = self.steps();
        let closes = matches!(steps.front(), Some(Step::CloseUnread));
        if closes {
            steps.pop_front();
        }
        closes
    }

    pub(crate) fn insert(&self, key: &str, step: Step) {
        self.of_keys().insert(key.to_owned(), step);
    }

    pub(crate) fn take(&self, key: &str) -> Option<Step> {
        self.of_keys().remove(key)
    }

    /// Sets the step of every request with a key, or removes it.
    pub(crate) fn always(&self, key: &str, step: Option<Step>) {
        let mut standing = self.standing();
        match step {
            Some(step) => standing.insert(key.to_owned(), step),
            None => standing.remove(key),
        };
    }

    /// Returns the step of a request with these keys, or [`Step::Serve`].
    pub(crate) fn step_of<'a>(&self, mut keys: impl Iterator<Item = &'a str>) -> Step {
        keys.find_map(|key| self.take(key).or_else(|| self.standing().get(key).cloned())).unwrap_or(Step::Serve)
    }

    pub(crate) fn len(&self) -> usize {
        self.steps().len()
    }

    fn steps(&self) -> MutexGuard<'_, VecDeque<Step>> {
        self.steps.lock().expect("no panic while the lock is held")
    }

    fn of_keys(&self) -> MutexGuard<'_, HashMap<String, Step>> {
        self.of_keys.lock().expect("no panic while the lock is held")
    }

    fn standing(&self) -> MutexGuard<'_, HashMap<String, Step>> {
        self.standing.lock().expect("no panic while the lock is held")
    }
}

#[cfg(test)]
mod tests {
    use super::{Script, Step};

    #[test]
    fn a_complete_request_skips_close_unread() {
        let script = Script::default();
        script.push([Step::Serve, Step::CloseUnread, Step::Reset]);
        assert!(!script.closes_unread() && !script.closes_unread(), "two requests start at the same time");
        assert!(matches!((script.next(), script.next()), (Step::Serve, Step::Reset)));
        assert!(script.closes_unread());
        assert_eq!(script.len(), 0);
    }
}
