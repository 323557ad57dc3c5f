//! The places for calls: so many at a time, none waits for one.

use std::{sync::Arc, time::Duration};

use opentelemetry::metrics::Meter;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::{Error, Reason};

/// How long a caller is asked to wait whose call found no place: as long as an ordinary call takes, and some.
const OVERLOADED: Duration = Duration::from_secs(1);

/// All places of the process.
pub(super) struct Places(Arc<Semaphore>);

impl Places {
    /// So many, and what shows how many are taken.
    pub(super) fn new(limit: usize, meter: &Meter) -> Self {
        let places = Arc::new(Semaphore::new(limit));
        let taken = {
            let places = places.clone();
            move || limit.saturating_sub(places.available_permits())
        };
        show(meter, "scm_gateway.calls.in_flight", "Calls in flight, as server.max_in_flight counts them", taken);
        show(meter, "scm_gateway.calls.limit", "Calls that may be in flight: server.max_in_flight", move || limit);
        Self(places)
    }

    /// A place, given back when it is dropped.
    pub(super) fn take(&self) -> Result<SemaphorePermit<'_>, Error> {
        self.0.try_acquire().map_err(|_| Error::held_back(Reason::Overloaded, OVERLOADED))
    }
}

/// Sums over instances say something of both: up-down counters, not gauges.
fn show(
    meter: &Meter,
    name: &'static str,
    description: &'static str,
    number: impl Fn() -> usize + Send + Sync + 'static,
) {
    meter
        .i64_observable_up_down_counter(name)
        .with_unit("{call}")
        .with_description(description)
        .with_callback(move |counter| counter.observe(i64::try_from(number()).unwrap_or(i64::MAX), &[]))
        .build();
}
