//! The task that polls one certificate while somebody watches it.

use std::{panic::AssertUnwindSafe, pin::pin, sync::Arc};

use futures_util::FutureExt as _;
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};
use tokio::{sync::watch, time::sleep};

use super::{
    Inner, Key, Poll,
    schedule::{Schedule, may_pass},
    state::{Latest, is_final},
};
use crate::{
    error::{Error, Progress, Reason},
    proto::Certificate,
};

/// The polls of one certificate. When it is dropped, the certificate counts as not watched.
pub(super) struct Poller<P> {
    hub: Arc<Inner<P>>,
    key: Key,
    latest: Arc<watch::Sender<Latest>>,
}

impl<P: Poll> Poller<P> {
    pub(super) fn new(hub: Arc<Inner<P>>, key: Key, latest: Arc<watch::Sender<Latest>>) -> Self {
        Self { hub, key, latest }
    }

    pub(super) fn latest(&self) -> Arc<watch::Sender<Latest>> {
        self.latest.clone()
    }

    /// Polls until the watches end, or nobody watches any more.
    pub(super) async fn run(self) {
        let mut polls = pin!(self.poll_to_the_end());
        let end = loop {
            tokio::select! {
                biased;
                () = self.latest.closed() => if self.remove_unwatched() { return },
                end = polls.as_mut() => break end,
            }
        };
        self.remove(); // before the watches end, so that a watch that begins after them polls again
        self.latest.send_modify(|latest| latest.close(end));
    }

    /// Polls until a final status, or until an error that does not pass.
    async fn poll_to_the_end(&self) -> Result<(), Error> {
        let mut schedule = Schedule::new(self.hub.interval);
        loop {
            let wait = match self.poll().await {
                Ok(certificate) => {
                    let is_final = is_final(&certificate.status);
                    let has_changed = self.latest.send_if_modified(|latest| latest.update(certificate));
                    self.hub.polls.count(if has_changed { "changed" } else { "unchanged" });
                    if is_final {
                        return Ok(());
                    }
                    schedule.after_success()
                }
                Err(error) if may_pass(error.reason) => {
                    self.hub.polls.count("postponed");
                    schedule.after_failure(&error)
                }
                Err(error) => {
                    self.hub.polls.count("failed");
                    return Err(error);
                }
            };
            sleep(wait).await;
        }
    }

    async fn poll(&self) -> Result<Certificate, Error> {
        let _permit = self.hub.in_flight.acquire().await.expect("the semaphore is never closed");
        let poll = AssertUnwindSafe(self.hub.poll.poll(&self.key)).catch_unwind();
        poll.await.unwrap_or_else(|_| Err(Error::new(Reason::Panic, Progress::MaybeSent)))
    }

    /// Removes the certificate if nobody watches it. Returns whether it is removed.
    fn remove_unwatched(&self) -> bool {
        let mut watched = self.hub.lock();
        let is_unwatched = self.latest.receiver_count() == 0;
        if is_unwatched {
            watched.remove(&self.key);
        }
        is_unwatched
    }
}

impl<P> Poller<P> {
    /// Removes the certificate, unless it has another task already.
    fn remove(&self) {
        let mut watched = self.hub.lock();
        if watched.get(&self.key).is_some_and(|latest| Arc::ptr_eq(latest, &self.latest)) {
            watched.remove(&self.key);
        }
    }
}

impl<P> Drop for Poller<P> {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Counts polls by their outcome.
pub(super) struct Polls(Counter<u64>);

impl Polls {
    pub(super) fn new(meter: &Meter) -> Self {
        let polls = meter
            .u64_counter("scm_gateway.watches.polls")
            .with_unit("{poll}")
            .with_description("Polls of watched certificates, by outcome")
            .build();
        for outcome in ["changed", "unchanged", "postponed", "failed"] {
            polls.add(0, &[KeyValue::new("outcome", outcome)]); // so that a rate sees the first one
        }
        Self(polls)
    }

    fn count(&self, outcome: &'static str) {
        self.0.add(1, &[KeyValue::new("outcome", outcome)]);
    }
}
