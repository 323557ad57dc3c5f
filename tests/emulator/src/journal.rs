//! The journal: the requests and connections that a test can inspect.

use std::sync::{Mutex, MutexGuard};

use tokio::sync::watch;

/// A request with a valid signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The method as it was received.
    pub method: String,
    /// Path and query, as they were received.
    pub target: String,
    /// The header lines in their received order and case. Bytes that are not UTF-8 are replaced.
    pub headers: Vec<(String, String)>,
    /// The content.
    pub body: Vec<u8>,
    /// The access key that signed it.
    pub access_key: String,
}

impl Recorded {
    /// Returns the value of the first header with this name. The name is case-insensitive.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// A request that was rejected because of its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The reason, a fixed text without any value of the request.
    pub reason: &'static str,
    /// Path and query, as they were received.
    pub target: String,
}

/// A processed request, for [`Options::observer`](crate::Options::observer).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processed {
    /// The method, or `-` if the head is invalid.
    pub method: String,
    /// The path without the query, or `-` if the head is invalid.
    pub path: String,
    /// The status sent, or `None` for a step that does not send a regular response.
    pub status: Option<u16>,
    /// Why the signature was rejected.
    pub rejection: Option<&'static str>,
}

/// The requests that SCM received.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    recorded: Mutex<Vec<Recorded>>,
    rejected: Mutex<Vec<Rejected>>,
}

impl Journal {
    pub(crate) fn record(&self, call: Recorded) {
        lock(&self.recorded).push(call);
    }

    pub(crate) fn reject(&self, rejected: Rejected) {
        lock(&self.rejected).push(rejected);
    }

    pub(crate) fn recorded(&self) -> Vec<Recorded> {
        lock(&self.recorded).clone()
    }

    pub(crate) fn take_recorded(&self) -> Vec<Recorded> {
        std::mem::take(&mut lock(&self.recorded))
    }

    pub(crate) fn rejected(&self) -> Vec<Rejected> {
        lock(&self.rejected).clone()
    }
}

/// The requests and connections of a server.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    attempts: watch::Sender<usize>,
    accepted: watch::Sender<usize>,
    open: watch::Sender<usize>,
}

impl Counters {
    pub(crate) fn attempt(&self) {
        self.attempts.send_modify(|count| *count += 1);
    }

    /// Counts a connection as accepted, and as open until the guard is dropped.
    pub(crate) fn connection(&self) -> OpenConnection {
        self.accepted.send_modify(|count| *count += 1);
        self.open.send_modify(|count| *count += 1);
        OpenConnection(self.open.clone())
    }

    pub(crate) fn attempts(&self) -> usize {
        *self.attempts.borrow()
    }

    pub(crate) fn connections(&self) -> usize {
        *self.accepted.borrow()
    }

    pub(crate) fn open_connections(&self) -> usize {
        *self.open.borrow()
    }

    pub(crate) async fn wait_for_attempts(&self, count: usize) {
        wait(&self.attempts, |attempts| attempts >= count).await;
    }

    pub(crate) async fn wait_for_open_connections(&self, count: usize) {
        wait(&self.open, |open| open == count).await;
    }
}

/// The guard of an open connection, also dropped if the connection's task is aborted.
#[derive(Debug)]
pub(crate) struct OpenConnection(watch::Sender<usize>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

async fn wait(counter: &watch::Sender<usize>, reached: impl Fn(usize) -> bool) {
    counter.subscribe().wait_for(|count| reached(*count)).await.expect("the sender is borrowed, so it is open");
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while the lock is held")
}
