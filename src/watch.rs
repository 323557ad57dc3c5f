//! Watched certificates: one poll for all watchers of a certificate.
//!
//! A [`Hub`] polls each watched certificate in a task of its own, as long as somebody watches it. Watchers get the newest
//! state that they have not seen, so a slow one skips states and nothing queues up. The module knows neither gRPC nor REST:
//! a [`Poll`] asks SCM.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use opentelemetry::metrics::Meter;

use crate::{error::Error, proto::Certificate};

mod channel;
mod metrics;
mod permits;
mod poller;
mod schedule;
mod state;
#[cfg(test)]
mod tests;

use channel::Channel;
use metrics::Metrics;
pub use metrics::PollCounts;
use permits::Permits;
use poller::Poller;
pub use schedule::may_pass;
use state::Latest;

/// Asks SCM for the state of a certificate.
pub trait Poll: Send + Sync + 'static {
    /// Returns the certificate. The future is dropped when nobody watches the certificate any more.
    fn poll(&self, key: &Key) -> impl Future<Output = Result<Certificate, Error>> + Send;
}

/// A certificate in its project.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// One of the configured projects.
    pub project_id: Arc<str>,
    /// The certificate's id.
    pub cert_id: String,
}

/// Who may poll how much at the same time.
pub struct Limits {
    /// All projects. The polls of one do not wait for those of another.
    pub projects: Vec<Arc<str>>,
    /// The callers that share a project. Each may have half of its polls, or all if there are no others.
    pub callers: BTreeSet<Arc<str>>,
    /// The polls of a project that may be in flight. Further polls wait, so that thousands of watches that begin together
    /// neither make SCM throttle the account nor take the permits of calls.
    pub max_polls: usize,
}

/// The watched certificates of the process.
pub struct Hub<P>(Arc<Inner<P>>);

struct Inner<P> {
    poll: P,
    interval: Duration,
    /// Certificates with a task that polls them.
    watched: Mutex<HashMap<Arc<Key>, Arc<Channel>>>,
    permits: BTreeMap<Arc<str>, Permits>,
    metrics: Metrics,
}

impl<P: Poll> Hub<P> {
    /// Creates a hub that polls every `interval`, give or take a tenth, and registers its metrics.
    pub fn new(poll: P, interval: Duration, limits: Limits, meter: &Meter) -> Self {
        let Limits { projects, callers, max_polls } = limits;
        let permits: BTreeMap<_, _> = projects.into_iter().map(|id| (id, Permits::new(&callers, max_polls))).collect();
        let metrics = Metrics::new(meter, permits.keys());
        Self(Arc::new(Inner { poll, interval, watched: Mutex::default(), permits, metrics }))
    }

    /// Returns the watched certificates and the waiting polls of a project.
    pub fn counts(&self, project_id: &str) -> PollCounts {
        self.0.metrics.counts(project_id)
    }

    /// Watches a certificate. The first watcher starts the polls, on the runtime of this call and with the permits of this
    /// caller.
    pub fn watch(&self, key: Key, caller: Option<&Arc<str>>) -> Watch {
        let (watch, poller) = match self.0.lock().entry(Arc::new(key)) {
            Entry::Occupied(entry) => (Watch::new(entry.get().clone()), None),
            Entry::Vacant(entry) => {
                let channel = Arc::<Channel>::default();
                let poller = Poller::new(self.0.clone(), entry.key().clone(), caller.cloned(), channel.clone());
                (Watch::new(entry.insert(channel).clone()), Some(poller))
            }
        };
        if let Some(poller) = poller {
            // Unlocked, because a task that is dropped locks. The block holds the poller once, `run(self)` would hold it twice.
            tokio::spawn(async move { poller.run().await });
        }
        watch
    }
}

impl<P> Inner<P> {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<Key>, Arc<Channel>>> {
        self.watched.lock().expect("no panic while the lock is held")
    }
}

/// A watch of a certificate.
pub struct Watch {
    channel: Arc<Channel>,
    /// The version of the state that was returned last.
    seen: u64,
}

impl Watch {
    fn new(channel: Arc<Channel>) -> Self {
        channel.add_watcher();
        Self { channel, seen: 0 }
    }

    /// Returns the newest state that was not returned yet, as soon as there is one. Returns `None` after a final status, and
    /// the error that has ended all watches of the certificate.
    pub async fn next(&mut self) -> Option<Result<Certificate, Error>> {
        let Self { channel, seen } = self;
        let next = |latest: &Latest| match latest.since(*seen) {
            Some(certificate) => {
                *seen = latest.version();
                Some(Some(Ok(certificate)))
            }
            None => latest.end().map(|end| end.err().map(Err)),
        };
        channel.wait(next).await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.channel.remove_watcher();
    }
}
