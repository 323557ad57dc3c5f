//! Metrics of temporary credentials: the exchanges, and the time until they expire.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};

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
            .with_description("Requests to a service for temporary credentials, by outcome")
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

/// When the newest credentials of a source expire, for the gauge.
#[derive(Debug, Clone, Default)]
pub(super) struct Expiry(Arc<Mutex<Option<SystemTime>>>);

impl Expiry {
    pub(super) fn set(&self, time: Option<SystemTime>) {
        *self.0.lock().expect("no panic while the lock is held") = time;
    }

    fn remaining(&self, now: SystemTime) -> Duration {
        let time = *self.0.lock().expect("no panic while the lock is held");
        time.and_then(|time| time.duration_since(now).ok()).unwrap_or_default()
    }
}

/// Returns the labels of a project.
pub(super) fn labels(project_id: Arc<str>, source: &'static str) -> [KeyValue; 2] {
    [KeyValue::new("scm.project_id", project_id), KeyValue::new(SOURCE, source)]
}

/// Registers the gauge. It is read at each collection.
pub(super) fn register_time_to_expiry(meter: &Meter, clock: Clock, projects: Vec<([KeyValue; 2], Expiry)>) {
    meter
        .f64_observable_gauge("scm_gateway.credentials.time_to_expiry")
        .with_unit("s")
        .with_description("Time until the temporary credentials expire; 0 without credentials")
        .with_callback(move |gauge| {
            let now = clock.now();
            projects.iter().for_each(|(labels, expiry)| gauge.observe(expiry.remaining(now).as_secs_f64(), labels));
        })
        .build();
}
