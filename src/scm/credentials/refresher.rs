//! Refreshes temporary credentials in the background.
//!
//! One task for each distinct source asks its service, and projects with equal sources share the task. `schedule.rs` says
//! when. Calls wait for the first credentials in [`Project`], not here. Credentials stay in use until they expire, even if
//! the service is unavailable; then calls wait again.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use opentelemetry::metrics::Meter;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    exchange_metrics::{ExchangeMetrics, NewestLease, labels, register_time_to_expiry},
    lease::Lease,
    schedule::{Exchanged, MIN_INTERVAL, MIN_REJECTION_INTERVAL, Schedule},
    source::{self, DynSource, Failure, FailureKind, TemporaryCredentials},
};
use crate::{
    clock::{self, Clock},
    config::{self, CredentialsSource, secret::Credentials},
    jitter,
    ops::{
        status::{self, ExchangeOutcome},
        telemetry::reload_metrics::FailingGauge,
    },
    scm::client::{
        project::{Project, Projects},
        transport::Transport,
    },
};

#[cfg(test)]
mod tests;
mod wait;

use wait::{MAX_SLEEP, Wait, WaitEnd};

/// How far the same expiration may lie apart in two responses, because the clock of the service is corrected by whole
/// seconds, and the clock of the gateway may be set.
const MAX_CLOCK_DEVIATION: Duration = Duration::from_secs(60);

/// Refreshes the credentials of all projects whose source is a service, until dropped.
pub(crate) fn refresh(
    config: &config::Projects,
    live: &Projects,
    transport: &Arc<Transport>,
    clock: &Clock,
    meter: &Meter,
) -> impl Future<Output = ()> + Send + 'static {
    let mut time_to_expiry = Vec::new();
    let refreshers = by_source(config, live).into_iter().map(|(config, projects)| {
        let newest = NewestLease::default();
        time_to_expiry
            .extend(projects.iter().map(|project| (labels(project.id.clone(), config.name()), newest.clone())));
        let origin = Origin {
            source: config.name(),
            project_ids: projects.iter().map(|project| &*project.id).collect::<Vec<_>>().join(", "),
        };
        let source = source::temporary(config, transport, clock);
        let failing: Vec<_> = projects
            .iter()
            .map(|project| FailingGauge::of_credentials(meter, project.id.clone(), project.reload_state.clone()))
            .collect();
        let publish = move |change: Change<'_>| {
            projects.iter().zip(&failing).for_each(|(project, failing)| apply(project, failing, change));
        };
        let metrics = ExchangeMetrics::new(meter, config.name());
        let schedule = Schedule::new(jitter::spread);
        Refresher::new(origin, source, schedule, publish, clock.clone(), metrics, newest).run()
    });
    let refreshers: Vec<_> = refreshers.collect();
    if !time_to_expiry.is_empty() {
        register_time_to_expiry(meter, clock.clone(), time_to_expiry);
    }
    async { drop(join_all(refreshers).await) }
}

/// Returns the distinct sources of temporary credentials, each with its projects.
fn by_source<'a>(
    config: &'a config::Projects,
    live: &Projects,
) -> Vec<(&'a config::TemporarySource, Vec<Arc<Project>>)> {
    let mut sources: Vec<(&config::TemporarySource, Vec<Arc<Project>>)> = Vec::new();
    for project in config.iter() {
        let CredentialsSource::Temporary(source) = &project.credentials_source else { continue };
        let Some(live) = live.get(&project.id).cloned() else { continue };
        match sources.iter_mut().find(|(known, _)| *known == source) {
            Some((_, projects)) => projects.push(live),
            None => sources.push((source, vec![live])),
        }
    }
    sources
}

fn apply(project: &Project, failing: &FailingGauge, change: Change<'_>) {
    match change {
        Change::Issued(credentials, lease) => project.install_credentials(credentials.clone(), Some(lease.clone())),
        Change::Expired(credentials) => project.remove_credentials(credentials),
        Change::Exchange(exchange) => {
            failing.set(exchange.last_outcome.is_some_and(ExchangeOutcome::is_failure));
            project.set_exchange(exchange);
        }
    }
}

/// What projects learn from the task.
#[derive(Debug, Clone, Copy)]
enum Change<'a> {
    /// There are new credentials. The previous ones may be used until they expire.
    Issued(&'a Credentials, &'a Arc<Lease>),
    /// These credentials must not be used any more.
    Expired(&'a Credentials),
    /// An exchange has started or ended.
    Exchange(status::Exchange),
}

/// The source and its projects, for the log.
struct Origin {
    source: &'static str,
    project_ids: String,
}

/// Credentials that the service has issued.
struct Issued {
    credentials: Credentials,
    lease: Arc<Lease>,
}

/// The task of one source. `P` publishes changes to its projects.
struct Refresher<P> {
    origin: Origin,
    source: Arc<DynSource<TemporaryCredentials>>,
    schedule: Schedule,
    publish: P,
    clock: Clock,
    current: Option<Issued>,
    /// Credentials from before the current ones that have not expired.
    previous: Vec<Issued>,
    exchange: status::Exchange,
    /// The problem of the last exchange, if it failed.
    problem: Option<String>,
    /// When credentials that SCM rejects may cause an exchange again.
    next_after_rejection: Instant,
    metrics: ExchangeMetrics,
    newest: NewestLease,
}

impl<P: Fn(Change<'_>)> Refresher<P> {
    fn new(
        origin: Origin,
        source: Arc<DynSource<TemporaryCredentials>>,
        schedule: Schedule,
        publish: P,
        clock: Clock,
        metrics: ExchangeMetrics,
        newest: NewestLease,
    ) -> Self {
        Self {
            origin,
            source,
            schedule,
            publish,
            clock,
            current: None,
            previous: Vec::new(),
            exchange: status::Exchange::default(),
            problem: None,
            next_after_rejection: clock::monotonic(),
            metrics,
            newest,
        }
    }

    async fn run(mut self) {
        loop {
            let started = clock::monotonic();
            self.exchange.next_at = None;
            (self.publish)(Change::Exchange(self.exchange));
            let source = self.source.clone();
            let result = self.until_expiry(source.get()).await;
            let wait = self.record(result);
            if self.until_expiry(wait.end()).await == WaitEnd::RejectedByScm {
                self.next_after_rejection = clock::monotonic() + MIN_REJECTION_INTERVAL;
                let Origin { source, project_ids } = &self.origin;
                tracing::warn!(source, project_ids, "SCM rejected temporary credentials, refreshing them");
            }
            self.until_expiry(sleep_until(started + MIN_INTERVAL)).await;
        }
    }

    /// Does `work`. Credentials that expire meanwhile are removed at that moment.
    async fn until_expiry<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            let issued = self.previous.iter().chain(&self.current);
            let remaining = issued.map(|issued| issued.lease.remaining(&self.clock)).min();
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = sleep(remaining.unwrap_or_default().min(MAX_SLEEP)), if remaining.is_some() => self.expire(),
            }
        }
    }

    /// Records the result of an exchange, and returns the wait for the next one.
    fn record(&mut self, result: Result<TemporaryCredentials, Failure>) -> Wait {
        let now = self.clock.now();
        let result = result.and_then(|fetched| match fetched.expires_at.duration_since(now) {
            Ok(left) if !left.is_zero() => Ok((fetched, left)),
            _ => Err(Failure::failed("the service returned expired credentials: check the clock")),
        });
        let (outcome, exchanged) = match result {
            Ok((fetched, left)) => self.install(fetched, left),
            Err(failure) => self.fail(failure),
        };
        self.metrics.count(outcome);
        let is_imposed = exchanged.imposes_wait();
        let duration = self.schedule.next(exchanged);
        let next = now + duration;
        self.exchange =
            status::Exchange { last_at: Some(now.into()), last_outcome: Some(outcome), next_at: Some(next.into()) };
        (self.publish)(Change::Exchange(self.exchange));
        Wait {
            until: clock::monotonic() + duration,
            wall_until: next,
            clock: self.clock.clone(),
            changeable: (outcome == ExchangeOutcome::Rejected).then(|| self.source.clone()),
            lease: self.current.as_ref().filter(|_| !is_imposed).map(|current| current.lease.clone()),
            next_after_rejection: self.next_after_rejection,
        }
    }

    /// Makes credentials the current ones. The same credentials are not published again, because verified credentials would
    /// become unverified. Earlier ones may come back, from a service with replicas or caches: they keep their lease, which
    /// projects may still use.
    fn install(&mut self, fetched: TemporaryCredentials, left: Duration) -> (ExchangeOutcome, Exchanged) {
        let TemporaryCredentials { credentials, expires_at } = fetched;
        let has_recovered = self.problem.take().is_some();
        let Origin { source, project_ids } = &self.origin;
        if let Some(current) = self.current.as_ref().filter(|current| current.credentials == credentials) {
            let is_longer = expires_at > current.lease.expires_at() + MAX_CLOCK_DEVIATION;
            current.lease.renew(expires_at, left);
            if has_recovered {
                tracing::info!(source, project_ids, "temporary credentials refresh recovered");
            }
            let exchanged = if is_longer { Exchanged::Issued(left) } else { Exchanged::Unchanged(left) };
            return (ExchangeOutcome::Unchanged, exchanged);
        }
        tracing::info!(source, project_ids, valid_for_seconds = left.as_secs(), "temporary credentials refreshed");
        let known = self.previous.extract_if(.., |previous| previous.credentials == credentials).next();
        let lease = known.map_or_else(|| Arc::new(Lease::new(expires_at, left)), |known| known.lease);
        lease.renew(expires_at, left);
        self.newest.set(Some(lease.clone()));
        (self.publish)(Change::Issued(&credentials, &lease));
        self.previous.extend(self.current.replace(Issued { credentials, lease }));
        (ExchangeOutcome::Issued, Exchanged::Issued(left))
    }

    /// Logs a failure, once if the next ones have the same problem.
    fn fail(&mut self, Failure { kind, problem }: Failure) -> (ExchangeOutcome, Exchanged) {
        if self.problem.as_ref() != Some(&problem) {
            let Origin { source, project_ids } = &self.origin;
            if self.current.is_some() {
                tracing::warn!(
                    source,
                    project_ids,
                    problem,
                    "temporary credentials refresh failed, using the current ones until they expire"
                );
            } else {
                tracing::warn!(
                    source,
                    project_ids,
                    problem,
                    "temporary credentials refresh failed, calls wait for them"
                );
            }
            self.problem = Some(problem);
        }
        match kind {
            FailureKind::Rejected => (ExchangeOutcome::Rejected, Exchanged::Rejected),
            FailureKind::Failed { retry_after } => (ExchangeOutcome::Failed, Exchanged::Failed { retry_after }),
        }
    }

    fn expire(&mut self) {
        let clock = self.clock.clone();
        let is_expired = |issued: &mut Issued| issued.lease.remaining(&clock).is_zero();
        for expired in self.previous.extract_if(.., is_expired) {
            (self.publish)(Change::Expired(&expired.credentials));
        }
        if let Some(expired) = self.current.take_if(is_expired) {
            let Origin { source, project_ids } = &self.origin;
            tracing::warn!(source, project_ids, "temporary credentials expired, calls wait for new ones");
            self.newest.set(None);
            (self.publish)(Change::Expired(&expired.credentials));
        }
    }
}
