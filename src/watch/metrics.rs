//! The metrics of watched certificates and their polls.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};

/// How a poll has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Watchers get the new state.
    Changed,
    Unchanged,
    /// With an error that may pass.
    Failed,
    /// With an error that ends the watches.
    Ended,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Changed, Self::Unchanged, Self::Failed, Self::Ended];

    const fn name(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
            Self::Ended => "ended",
        }
    }
}

/// What the last poll of a certificate says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LastPoll {
    /// The first poll has no outcome yet.
    None,
    Succeeded,
    /// The poll failed with an error that may pass, so watchers do not see changes.
    Failed,
}

impl LastPoll {
    const ALL: [Self; 3] = [Self::None, Self::Succeeded, Self::Failed];

    const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

/// The watched certificates and the waiting polls of a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollCounts {
    /// Watched certificates whose first poll has no outcome yet.
    pub none: usize,
    /// Watched certificates whose last poll succeeded.
    pub succeeded: usize,
    /// Watched certificates whose last poll failed with an error that may pass.
    pub failed: usize,
    /// Polls that wait until others of the project have ended.
    pub waiting_polls: usize,
}

/// The counters of one project.
#[derive(Debug, Default)]
struct Counters {
    /// In the order of [`LastPoll::ALL`].
    certificates: [AtomicUsize; 3],
    waiting: AtomicUsize,
}

/// The counters of all projects, by their id.
type ByProject = BTreeMap<Arc<str>, Counters>;

/// The metrics of a hub.
pub(super) struct Metrics {
    polls: Counter<u64>,
    projects: Arc<ByProject>,
}

impl Metrics {
    /// Registers the metrics, with all series, so that a rate sees the first poll.
    pub(super) fn new<'a>(meter: &Meter, projects: impl Iterator<Item = &'a Arc<str>>) -> Self {
        let polls = meter
            .u64_counter("scm_gateway.watches.polls")
            .with_unit("{poll}")
            .with_description("Polls of watched certificates, by outcome")
            .build();
        let projects: Arc<ByProject> = Arc::new(projects.map(|id| (id.clone(), Counters::default())).collect());
        for project in projects.keys() {
            for outcome in Outcome::ALL {
                polls.add(0, &[project_id(project), KeyValue::new("outcome", outcome.name())]);
            }
        }
        let waiting = projects.clone();
        meter
            .i64_observable_up_down_counter("scm_gateway.watches.waiting_polls")
            .with_unit("{poll}")
            .with_description("Polls that wait until others of their project have ended")
            .with_callback(move |counter| {
                for (id, counters) in waiting.iter() {
                    counter.observe(value(&counters.waiting), &[project_id(id)]);
                }
            })
            .build();
        let certificates = projects.clone();
        meter
            .i64_observable_up_down_counter("scm_gateway.watches.certificates")
            .with_unit("{certificate}")
            .with_description("Watched certificates, by the result of the last poll")
            .with_callback(move |counter| {
                for (id, counters) in certificates.iter() {
                    for last in LastPoll::ALL {
                        let labels = [project_id(id), KeyValue::new("last_poll", last.name())];
                        counter.observe(value(&counters.certificates[last as usize]), &labels);
                    }
                }
            })
            .build();
        Self { polls, projects }
    }

    /// Returns the current values of a project.
    pub(super) fn counts(&self, project: &str) -> PollCounts {
        let counters = self.of(project);
        let certificates = |last: LastPoll| counters.certificates[last as usize].load(Relaxed);
        PollCounts {
            none: certificates(LastPoll::None),
            succeeded: certificates(LastPoll::Succeeded),
            failed: certificates(LastPoll::Failed),
            waiting_polls: counters.waiting.load(Relaxed),
        }
    }

    /// Counts a poll.
    pub(super) fn count_poll(&self, project: &Arc<str>, outcome: Outcome) {
        self.polls.add(1, &[project_id(project), KeyValue::new("outcome", outcome.name())]);
    }

    /// Counts a poll that waits, until the result is dropped.
    pub(super) fn waiting(&self, project: &str) -> Counted<'_> {
        Counted::new(&self.of(project).waiting)
    }

    /// Counts a watched certificate, until the result is dropped.
    pub(super) fn certificate(&self, project: &str, last: LastPoll) -> Counted<'_> {
        Counted::new(&self.of(project).certificates[last as usize])
    }

    fn of(&self, project: &str) -> &Counters {
        self.projects.get(project).expect("only configured projects are watched")
    }
}

fn project_id(project: &Arc<str>) -> KeyValue {
    KeyValue::new("scm.project_id", project.clone())
}

fn value(counter: &AtomicUsize) -> i64 {
    i64::try_from(counter.load(Relaxed)).unwrap_or(i64::MAX)
}

/// One in a counter, until it is dropped.
pub(super) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Relaxed);
        Self(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
