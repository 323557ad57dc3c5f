//! The state of the way to SCM, for those who watch: circuits and clock.

use std::sync::Arc;

use opentelemetry::{KeyValue, metrics::Meter};

use super::{skew::Skew, target::Targets};

/// Registers the gauges; they are read when somebody collects.
pub(super) fn register(meter: &Meter, targets: &Arc<Targets>, skew: &Arc<Skew>) {
    let targets = targets.clone();
    meter
        .u64_observable_gauge("scm_gateway.circuit.open")
        .with_description("1 while calls of the project are refused without asking SCM")
        .with_callback(move |gauge| {
            for target in targets.iter() {
                for (circuit, open) in [("upstream", target.circuit.is_open()), ("credentials", target.key.is_open())] {
                    let labels =
                        [KeyValue::new("scm.project_id", target.id.clone()), KeyValue::new("circuit", circuit)];
                    gauge.observe(u64::from(open), &labels);
                }
            }
        })
        .build();
    let skew = skew.clone();
    meter
        .i64_observable_gauge("scm_gateway.clock.skew")
        .with_unit("s")
        .with_description("How far SCM's clock is ahead of ours, by the Date of its last answer")
        .with_callback(move |gauge| gauge.observe(skew.seconds(), &[]))
        .build();
}
