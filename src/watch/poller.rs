//! The task that polls one certificate while somebody watches it.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt as _;
use tokio::time::sleep_until;

use super::{
    Inner, Key, Poll,
    channel::Channel,
    metrics::{Counted, LastPoll, Outcome},
    schedule::{Schedule, may_pass},
    state::is_final,
    watched_by,
};
use crate::{
    clock,
    error::{Error, Progress, Reason},
    proto::Certificate,
};

/// The polls of one certificate. When it is dropped, the certificate counts as not watched.
pub(super) struct Poller<P> {
    hub: Arc<Inner<P>>,
    key: Arc<Key>,
    /// The first watcher.
    caller: Option<Arc<str>>,
    channel: Arc<Channel>,
}

impl<P: Poll> Poller<P> {
    pub(super) fn new(hub: Arc<Inner<P>>, key: Arc<Key>, caller: Option<Arc<str>>, channel: Arc<Channel>) -> Self {
        Self { hub, key, caller, channel }
    }

    /// Polls until the watches end. The last watcher to leave aborts the task.
    pub(super) async fn run(&self) {
        let end = self.poll_to_the_end().await;
        self.end(end);
    }

    /// Polls until a final status, or until an error that does not pass.
    async fn poll_to_the_end(&self) -> Result<(), Error> {
        let mut schedule = Schedule::new(self.hub.interval);
        let mut counted = self.count_certificate(LastPoll::None);
        let mut is_logged = false;
        loop {
            let (last, next) = match self.poll().await {
                Ok(certificate) => {
                    let is_final = is_final(&certificate.status);
                    let has_changed = self.channel.update(&certificate);
                    self.count_poll(if has_changed { Outcome::Changed } else { Outcome::Unchanged });
                    if is_final {
                        return Ok(());
                    }
                    if std::mem::take(&mut is_logged) {
                        self.log_recovery();
                    }
                    (LastPoll::Succeeded, self.hub.ticks.after(schedule.after_success()))
                }
                Err(error) if may_pass(error.reason) => {
                    self.count_poll(Outcome::Failed);
                    // Polls that are not made have other lines in the log, such as "circuit opened".
                    if error.attempts > 0 && !is_logged {
                        is_logged = true;
                        self.log_failure(&error);
                    }
                    (LastPoll::Failed, clock::monotonic() + schedule.after_failure(&error))
                }
                Err(error) => {
                    self.count_poll(Outcome::Ended);
                    return Err(error);
                }
            };
            drop(counted);
            counted = self.count_certificate(last);
            sleep_until(next).await;
        }
    }

    /// Polls once. The futures are boxed, because a task waits most of the time, and the one of a call is large.
    async fn poll(&self) -> Result<Certificate, Error> {
        let Inner { poll, permits, metrics, .. } = &*self.hub;
        let project = &self.key.project_id;
        let permits = permits.get(project).expect("only configured projects are watched");
        let waiting = metrics.waiting(project);
        let _permit = Box::pin(permits.acquire(self.caller.as_ref())).await;
        drop(waiting);
        let poll = Box::pin(AssertUnwindSafe(poll.poll(&self.key)).catch_unwind());
        poll.await.unwrap_or_else(|_| Err(Error::new(Reason::Panic, Progress::MaybeSent)))
    }

    fn count_poll(&self, outcome: Outcome) {
        self.hub.metrics.count_poll(&self.key.project_id, outcome);
    }

    fn count_certificate(&self, last: LastPoll) -> Counted<'_> {
        self.hub.metrics.certificate(&self.key.project_id, last)
    }

    /// Logs the first of several failed polls.
    fn log_failure(&self, error: &Error) {
        let answer = error.answer.as_deref();
        tracing::warn!(
            project_id = &*self.key.project_id,
            cert_id = &*self.key.cert_id,
            reason = error.reason.name(),
            cause = error.cause,
            attempts = error.attempts,
            http_status = answer.map(|answer| answer.http_status),
            upstream_code = answer.and_then(|answer| answer.code.as_deref()),
            upstream_request_id = answer.and_then(|answer| answer.request_id.as_deref()),
            "polls of a watched certificate fail"
        );
    }

    fn log_recovery(&self) {
        let Key { project_id, cert_id } = &*self.key;
        tracing::info!(
            project_id = &**project_id,
            cert_id = &**cert_id,
            "polls of a watched certificate succeed again"
        );
    }
}

impl<P> Poller<P> {
    /// Ends the watches, unless they have ended.
    fn end(&self, end: Result<(), Error>) {
        // Before the watches end, so that a watch that begins after them polls again.
        let mut watched = self.hub.lock();
        if watched_by(&mut watched, &self.key, &self.channel).is_some() {
            watched.remove(&self.key);
        }
        drop(watched);
        self.channel.close(end);
    }
}

impl<P> Drop for Poller<P> {
    fn drop(&mut self) {
        // If the task ends together with its runtime. After an abort nobody watches.
        self.end(Err(Error::new(Reason::ShuttingDown, Progress::NotSent)));
    }
}
