//! Metrics of the outbound stack: circuit breakers, pending credentials, clock skew and retries, per project.

use std::sync::Arc;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};

use super::{
    project::{Project, Projects},
    retry::{Budget, RETRIED},
};
use crate::{error::Reason, ops::telemetry::attribute};

/// Registers the gauges. They are read at each collection.
pub(super) fn register_metrics(meter: &Meter, projects: &Arc<Projects>) {
    let circuits = projects.clone();
    let credentials = projects.clone();
    let ages = projects.clone();
    let skews = projects.clone();
    meter
        .u64_observable_gauge("scm_gateway.circuit.open")
        .with_description("1 while calls of the project are rejected without a request to SCM")
        .with_callback(move |gauge| {
            for project in circuits.iter() {
                let states =
                    [("upstream", project.breaker.is_open()), ("credentials", project.credentials.is_suspended())];
                for (circuit, open) in states {
                    let labels =
                        [KeyValue::new("scm.project_id", project.id.clone()), KeyValue::new("circuit", circuit)];
                    gauge.observe(u64::from(open), &labels);
                }
            }
        })
        .build();
    meter
        .u64_observable_gauge("scm_gateway.credentials.pending")
        .with_description("1 while SCM has not accepted the newest credentials, by what it has said about them")
        .with_callback(move |gauge| {
            for project in credentials.iter() {
                let is_rejected = project.credentials.is_pending_rejected();
                for (state, of_state) in [("untried", false), ("rejected", true)] {
                    let labels = [KeyValue::new("scm.project_id", project.id.clone()), KeyValue::new("state", state)];
                    gauge.observe(u64::from(is_rejected == Some(of_state)), &labels);
                }
            }
        })
        .build();
    meter
        .f64_observable_gauge("scm_gateway.credentials.age")
        .with_unit("s")
        .with_description(
            "Time since the credentials were loaded that calls are signed with; absent without credentials",
        )
        .with_callback(move |gauge| {
            for project in ages.iter() {
                if let Some(age) = project.credentials.age() {
                    gauge.observe(age.as_secs_f64(), &[KeyValue::new("scm.project_id", project.id.clone())]);
                }
            }
        })
        .build();
    meter
        .i64_observable_gauge("scm_gateway.clock.skew")
        .with_unit("s")
        .with_description("How far SCM's clock is ahead, by the Date of its last response")
        .with_callback(move |gauge| {
            for project in skews.iter() {
                let labels = [KeyValue::new("scm.project_id", project.id.clone())];
                gauge.observe(project.clock_skew.seconds(), &labels);
            }
        })
        .build();
}

/// Counts the retries. All series exist from the start, so that a rate sees the first retry.
pub(super) struct RetryMetrics(Counter<u64>);

impl RetryMetrics {
    /// Creates the counters of retries, and of those that `budget` did not allow.
    pub(super) fn new(meter: &Meter, projects: &Projects, budget: Arc<Budget>) -> Self {
        meter
            .u64_observable_counter("scm_gateway.retry_budget.exhausted")
            .with_unit("{retry}")
            .with_description("Retries that were not made because the retry budget was exhausted")
            .with_callback(move |counter| counter.observe(budget.exhausted(), &[]))
            .build();
        let retries = meter
            .u64_counter("scm_gateway.retries")
            .with_unit("{retry}")
            .with_description("Attempts after a failed attempt of the same call, by the reason of the failure")
            .build();
        let metrics = Self(retries);
        for project in projects.iter() {
            RETRIED.iter().for_each(|reason| metrics.add(0, project, *reason));
        }
        metrics
    }

    /// Counts a retry after an attempt that failed for this reason.
    pub(super) fn count(&self, project: &Project, reason: Reason) {
        self.add(1, project, reason);
    }

    fn add(&self, count: u64, project: &Project, reason: Reason) {
        let labels =
            [KeyValue::new("scm.project_id", project.id.clone()), KeyValue::new(attribute::SCM_REASON, reason.name())];
        self.0.add(count, &labels);
    }
}
