//! The journal: what a test can see of the requests and connections that came in.

use std::sync::{Mutex, MutexGuard};

use tokio::sync::watch;

/// A request whose signature was right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The method as it came.
    pub method: String,
    /// Path and query as they were on the wire.
    pub target: String,
    /// The header lines in the order and case of the wire; bytes that are not UTF-8 are replaced.
    pub headers: Vec<(String, String)>,
    /// The content.
    pub body: Vec<u8>,
    /// The access key that signed it.
    pub access_key: String,
}

impl Recorded {
    /// The value of the first header of this name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// A request that was refused for its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What was wrong, a fixed text without any value of the request.
    pub reason: &'static str,
    /// Path and query as they were on the wire.
    pub target: String,
}

/// One request that is dealt with, for [`Options::observer`](crate::Options::observer).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The method; `-` when the head could not be read.
    pub method: String,
    /// The path without the query; `-` when the head could not be read.
    pub path: String,
    /// The status sent, or `None` for a step that sends no regular answer.
    pub status: Option<u16>,
    /// Why the signature was refused.
    pub refusal: Option<&'static str>,
}

#[derive(Debug, Default)]
pub(crate) struct Journal {
    recorded: Mutex<Vec<Recorded>>,
    refused: Mutex<Vec<Refused>>,
    attempts: watch::Sender<usize>,
    accepted: watch::Sender<usize>,
    open: watch::Sender<usize>,
}

impl Journal {
    pub(crate) fn record(&self, call: Recorded) {
        lock(&self.recorded).push(call);
    }

    pub(crate) fn refuse(&self, refused: Refused) {
        lock(&self.refused).push(refused);
    }

    pub(crate) fn attempt(&self) {
        self.attempts.send_modify(|count| *count += 1);
    }

    /// Counts a connection as accepted, and as open as long as the guard lives.
    pub(crate) fn connection(&self) -> OpenConnection {
        self.accepted.send_modify(|count| *count += 1);
        self.open.send_modify(|count| *count += 1);
        OpenConnection(self.open.clone())
    }

    pub(crate) fn recorded(&self) -> Vec<Recorded> {
        lock(&self.recorded).clone()
    }

    pub(crate) fn refused(&self) -> Vec<Refused> {
        lock(&self.refused).clone()
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

/// A connection that is open; dropping it counts it out, also when its task is aborted.
#[derive(Debug)]
pub(crate) struct OpenConnection(watch::Sender<usize>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

async fn wait(counter: &watch::Sender<usize>, reached: impl Fn(usize) -> bool) {
    counter.subscribe().wait_for(|count| reached(*count)).await.expect("the sender is borrowed, so it lives");
}

fn lock<T>(list: &Mutex<Vec<T>>) -> MutexGuard<'_, Vec<T>> {
    list.lock().expect("no holder of this lock panics")
}
