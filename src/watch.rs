//! Watched certificates: one poll for all watchers of a certificate.
//!
//! A [`Hub`] polls each watched certificate in a task of its own, as long as somebody watches it. Watchers get the newest
//! state that they have not seen, so a slow one skips states and nothing queues up. The module knows neither gRPC nor REST:
//! a [`Poll`] asks SCM.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use opentelemetry::metrics::Meter;
use tokio::task::AbortHandle;

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
use schedule::Ticks;
pub use schedule::may_pass;

/// Asks SCM for the state of a certificate.
pub trait Poll: Send + Sync + 'static {
    /// Returns the certificate. The future is dropped when nobody watches the certificate any more.
    fn poll(&self, key: &Key) -> impl Future<Output = Result<Certificate, Error>> + Send;
}

/// A certificate in its project.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// One of the configured projects.
    pub project_id: Arc<str>,
    /// The certificate's id.
    pub cert_id: Box<str>,
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
    ticks: Ticks,
    watched: Mutex<ByKey>,
    permits: BTreeMap<Arc<str>, Permits>,
    metrics: Metrics,
}

impl<P: Poll> Hub<P> {
    /// Creates a hub that polls every `interval`, give or take a tenth, and registers its metrics.
    pub fn new(poll: P, interval: Duration, limits: Limits, meter: &Meter) -> Self {
        let Limits { projects, callers, max_polls } = limits;
        let permits: BTreeMap<_, _> = projects.into_iter().map(|id| (id, Permits::new(&callers, max_polls))).collect();
        let metrics = Metrics::new(meter, permits.keys());
        let ticks = Ticks::start(interval);
        Self(Arc::new(Inner { poll, interval, ticks, watched: Mutex::default(), permits, metrics }))
    }

    /// Returns the watched certificates and the waiting polls of a project.
    pub fn counts(&self, project_id: &str) -> PollCounts {
        self.0.metrics.counts(project_id)
    }

    /// Watches a certificate. The first watcher starts the polls, on the runtime of this call and with the permits of this
    /// caller.
    pub fn watch(&self, key: Key, caller: Option<&Arc<str>>) -> Watch<P> {
        let (watch, is_first) = {
            let mut watched = self.0.lock();
            let entry = watched.entry(Arc::new(key));
            let key = entry.key().clone();
            let watched = entry.or_default();
            watched.watchers += 1;
            (Watch { hub: self.0.clone(), key, channel: watched.channel.clone(), seen: 0 }, watched.watchers == 1)
        };
        if is_first {
            let poller = Poller::new(self.0.clone(), watch.key.clone(), caller.cloned(), watch.channel.clone());
            // Unlocked, because a task that is dropped locks. The block holds the poller once, `run(self)` would hold it twice.
            let task = tokio::spawn(async move { poller.run().await });
            if let Some(watched) = watched_by(&mut self.0.lock(), &watch.key, &watch.channel) {
                watched.task = Some(task.abort_handle());
            }
        }
        watch
    }
}

/// The watched certificates. A hash table that has grown would be half empty, and leave its smaller ones to the allocator.
type ByKey = BTreeMap<Arc<Key>, Watched>;

/// A certificate with a task that polls it, until the task ends or the last watcher leaves.
#[derive(Default)]
struct Watched {
    channel: Arc<Channel>,
    watchers: usize,
    task: Option<AbortHandle>,
}

impl<P> Inner<P> {
    fn lock(&self) -> MutexGuard<'_, ByKey> {
        self.watched.lock().expect("no panic while the lock is held")
    }
}

/// A watch of a certificate.
pub struct Watch<P> {
    hub: Arc<Inner<P>>,
    key: Arc<Key>,
    channel: Arc<Channel>,
    /// The version of the state that was returned last.
    seen: u64,
}

impl<P> Watch<P> {
    /// Returns the newest state that was not returned yet, as soon as there is one. Returns `None` after a final status, and
    /// the error that has ended all watches of the certificate.
    pub fn next_state(&mut self) -> impl Future<Output = Option<Result<Certificate, Error>>> {
        let Self { channel, seen, .. } = self;
        channel.wait(|latest| match latest.since(*seen) {
            Some(certificate) => {
                *seen = latest.version();
                Some(Some(Ok(certificate)))
            }
            None => latest.end().map(|end| end.err().map(Err)),
        })
    }
}

/// Returns the watched certificate, unless the task of this channel has ended.
fn watched_by<'a>(all: &'a mut ByKey, key: &Key, channel: &Arc<Channel>) -> Option<&'a mut Watched> {
    all.get_mut(key).filter(|watched| Arc::ptr_eq(&watched.channel, channel))
}

impl<P> Drop for Watch<P> {
    fn drop(&mut self) {
        let mut all = self.hub.lock();
        let Some(watched) = watched_by(&mut all, &self.key, &self.channel) else { return };
        watched.watchers -= 1;
        if watched.watchers == 0 {
            let task = watched.task.take();
            all.remove(&self.key);
            drop(all);
            task.inspect(AbortHandle::abort);
        }
    }
}
