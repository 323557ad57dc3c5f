//! Metrics of temporary credentials: the exchanges, and the time until they expire.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};

use super::Lease;
use crate::{clock::Clock, ops::status::ExchangeOutcome};

const SOURCE: &str = "source";

/// Counts the exchanges of a source. All series exist from the start, so that a rate sees the first exchange.
pub(super) struct ExchangeMetrics {
    exchanges: Counter<u64>,
    source: &'static str,
}

impl ExchangeMetrics {
    pub(super) fn new(meter: &Meter, source: &'static str) -> Self {
        let exchanges = meter
            .u64_counter("scm_gateway.credentials.exchanges")
            .with_unit("{exchange}")
            .with_description("Exchanges for temporary credentials, by outcome")
            .build();
        let metrics = Self { exchanges, source };
        ExchangeOutcome::ALL.iter().for_each(|outcome| metrics.add(0, *outcome));
        metrics
    }

    pub(super) fn count(&self, outcome: ExchangeOutcome) {
        self.add(1, outcome);
    }

    fn add(&self, count: u64, outcome: ExchangeOutcome) {
        let labels = [KeyValue::new(SOURCE, self.source), KeyValue::new("outcome", outcome.name())];
        self.exchanges.add(count, &labels);
    }
}

/// The lease of the newest credentials of a source, for the gauge.
#[derive(Debug, Clone, Default)]
pub(super) struct NewestLease(Arc<Mutex<Option<Arc<Lease>>>>);

impl NewestLease {
    pub(super) fn set(&self, lease: Option<Arc<Lease>>) {
        *self.0.lock().expect("no panic while the lock is held") = lease;
    }

    fn remaining(&self, clock: &Clock) -> Duration {
        let lease = self.0.lock().expect("no panic while the lock is held");
        lease.as_ref().map(|lease| lease.remaining(clock)).unwrap_or_default()
    }
}

/// Returns the labels of a project.
pub(super) fn labels(project_id: Arc<str>, source: &'static str) -> [KeyValue; 2] {
    [KeyValue::new("scm.project_id", project_id), KeyValue::new(SOURCE, source)]
}

/// Registers the gauge. It is read at each collection.
pub(super) fn register_time_to_expiry(meter: &Meter, clock: Clock, projects: Vec<([KeyValue; 2], NewestLease)>) {
    meter
        .f64_observable_gauge("scm_gateway.credentials.time_to_expiry")
        .with_unit("s")
        .with_description("Time until the temporary credentials expire; 0 without credentials")
        .with_callback(move |gauge| {
            let observe = |(labels, lease): &([KeyValue; 2], NewestLease)| {
                gauge.observe(lease.remaining(&clock).as_secs_f64(), labels);
            };
            projects.iter().for_each(observe);
        })
        .build();
}
