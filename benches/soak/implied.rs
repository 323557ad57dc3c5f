//! The failures that no fault of the call itself implies: those of connections, and of the cooldown after a 429.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use tokio::time::Instant;

use crate::harness::Seen;

pub const UNTRUSTED: &str = "UPSTREAM_TLS";
pub const LOST: &str = "UPSTREAM_UNAVAILABLE";

/// The longest cooldown after a 429, with its probe.
const COOLDOWN: Duration = Duration::from_secs(5);

#[derive(Default)]
pub struct Implied {
    /// The last scripted 429.
    throttled: Mutex<Option<Instant>>,
    /// For each reason, how many more calls may fail.
    calls: Mutex<BTreeMap<&'static str, usize>>,
}

impl Implied {
    /// Allows further calls to fail with this reason.
    pub fn expect(&self, reason: &'static str, calls: usize) {
        *self.calls.lock().unwrap().entry(reason).or_default() += calls;
    }

    /// Starts or extends the cooldown.
    pub fn throttled(&self) {
        *self.throttled.lock().unwrap() = Some(Instant::now());
    }

    /// Returns whether the failure of a call is implied, and counts it.
    pub fn accepts(&self, seen: &Seen, has_met_fault: bool) -> bool {
        let is_sent = seen.metadata.contains_key("attempts");
        let is_cooldown = self.throttled.lock().unwrap().is_some_and(|last| last.elapsed() < COOLDOWN);
        match (seen.reason.as_str(), is_sent) {
            ("UPSTREAM_THROTTLED", false) => is_cooldown,
            // The cooldown prevents the retry.
            (LOST | "UPSTREAM_TIMEOUT", true) if has_met_fault => is_cooldown,
            (LOST, true) => is_cooldown && self.take(LOST),
            (reason, true) => self.take(reason),
            _ => false,
        }
    }

    fn take(&self, reason: &str) -> bool {
        let mut calls = self.calls.lock().unwrap();
        let further = calls.get_mut(reason).filter(|further| **further > 0);
        further.map(|further| *further -= 1).is_some()
    }
}
