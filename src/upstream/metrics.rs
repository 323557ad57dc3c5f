//! The state of the way to SCM, for those who watch: circuits and clock.

use std::sync::Arc;

use opentelemetry::{KeyValue, metrics::Meter};

use super::target::Targets;

/// Registers the gauges; they are read when somebody collects.
pub(super) fn register(meter: &Meter, targets: &Arc<Targets>) {
    let (circuits, skews) = (targets.clone(), targets.clone());
    meter
        .u64_observable_gauge("scm_gateway.circuit.open")
        .with_description("1 while calls of the project are refused without asking SCM")
        .with_callback(move |gauge| {
            for target in circuits.iter() {
                for (circuit, open) in [("upstream", target.circuit.is_open()), ("credentials", target.key.is_open())] {
                    let labels =
                        [KeyValue::new("scm.project_id", target.id.clone()), KeyValue::new("circuit", circuit)];
                    gauge.observe(u64::from(open), &labels);
                }
            }
        })
        .build();
    meter
        .i64_observable_gauge("scm_gateway.clock.skew")
        .with_unit("s")
        .with_description("How far SCM's clock is ahead of ours, by the Date of its last answer")
        .with_callback(move |gauge| {
            for target in skews.iter() {
                gauge.observe(target.skew.seconds(), &[KeyValue::new("scm.project_id", target.id.clone())]);
            }
        })
        .build();
}
