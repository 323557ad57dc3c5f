//! What the runtime tells of itself.

use opentelemetry::metrics::Meter;
use tokio::runtime::Handle;

/// Shows how many tasks there are: one for each that never ends is a leak.
pub(super) fn observe(meter: &Meter) {
    let runtime = Handle::current().metrics();
    meter
        .u64_observable_gauge("scm_gateway.runtime.alive_tasks")
        .with_unit("{task}")
        .with_description("Tasks of the runtime that have not ended")
        .with_callback(move |gauge| gauge.observe(runtime.num_alive_tasks() as u64, &[]))
        .build();
}
