//! The metrics of watched certificates and their polls.

use std::sync::Arc;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter, UpDownCounter},
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

/// The metrics of a hub.
pub(super) struct Metrics {
    polls: Counter<u64>,
    waiting: UpDownCounter<i64>,
    certificates: UpDownCounter<i64>,
}

impl Metrics {
    /// Registers the metrics, with all series, so that a rate sees the first poll.
    pub(super) fn new<'a>(meter: &Meter, projects: impl Iterator<Item = &'a Arc<str>>) -> Self {
        let polls = meter
            .u64_counter("scm_gateway.watches.polls")
            .with_unit("{poll}")
            .with_description("Polls of watched certificates, by outcome")
            .build();
        let waiting = meter
            .i64_up_down_counter("scm_gateway.watches.waiting_polls")
            .with_unit("{poll}")
            .with_description("Polls that wait until others of their project have ended")
            .build();
        let certificates = meter
            .i64_up_down_counter("scm_gateway.watches.certificates")
            .with_unit("{certificate}")
            .with_description("Watched certificates, by the result of the last poll")
            .build();
        for project in projects {
            for outcome in Outcome::ALL {
                polls.add(0, &[project_id(project), KeyValue::new("outcome", outcome.name())]);
            }
            waiting.add(0, &[project_id(project)]);
            for last in LastPoll::ALL {
                certificates.add(0, &[project_id(project), last_poll(last)]);
            }
        }
        Self { polls, waiting, certificates }
    }

    /// Counts a poll.
    pub(super) fn count_poll(&self, project: &Arc<str>, outcome: Outcome) {
        self.polls.add(1, &[project_id(project), KeyValue::new("outcome", outcome.name())]);
    }

    /// Counts a poll that waits, until the result is dropped.
    pub(super) fn waiting(&self, project: &Arc<str>) -> Counted<1> {
        Counted::new(&self.waiting, [project_id(project)])
    }

    /// Counts a watched certificate, until the result is dropped.
    pub(super) fn certificate(&self, project: &Arc<str>, last: LastPoll) -> Counted<2> {
        Counted::new(&self.certificates, [project_id(project), last_poll(last)])
    }
}

fn project_id(project: &Arc<str>) -> KeyValue {
    KeyValue::new("scm.project_id", project.clone())
}

fn last_poll(last: LastPoll) -> KeyValue {
    KeyValue::new("last_poll", last.name())
}

/// One in an up-down counter, until it is dropped.
pub(super) struct Counted<const N: usize> {
    counter: UpDownCounter<i64>,
    labels: [KeyValue; N],
}

impl<const N: usize> Counted<N> {
    fn new(counter: &UpDownCounter<i64>, labels: [KeyValue; N]) -> Self {
        counter.add(1, &labels);
        Self { counter: counter.clone(), labels }
    }
}

impl<const N: usize> Drop for Counted<N> {
    fn drop(&mut self) {
        self.counter.add(-1, &self.labels);
    }
}
