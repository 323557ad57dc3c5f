//! Gauges of the outbound stack: circuit breakers, pending credentials and clock skew, per project.

use std::sync::Arc;

use opentelemetry::{KeyValue, metrics::Meter};

use super::project::Projects;

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
