//! Tells the metrics what became of changes of keys and certificates.

use std::sync::Arc;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Meter},
};

/// The changes of one key, or of the certificates of one side. Both series are there from the start, so that a rate sees
/// the first change.
pub(crate) struct Reloads {
    counter: Counter<u64>,
    failing: Gauge<u64>,
    of: KeyValue,
}

impl Reloads {
    /// Of a project's key.
    pub(crate) fn of_key(meter: &Meter, project_id: Arc<str>) -> Self {
        let counter = meter
            .u64_counter("scm_gateway.credentials.reloads")
            .with_description("Changes of a key, by outcome: used, or failed and the last good key stays")
            .build();
        let failing = meter
            .u64_gauge("scm_gateway.credentials.reload.failing")
            .with_description("1 while there is another key, or none, and it cannot be read: the last good one stays")
            .build();
        Self::new(counter, failing, KeyValue::new("scm.project_id", project_id))
    }

    /// Of the certificates of `side`.
    pub(crate) fn of_certificates(meter: &Meter, side: &'static str) -> Self {
        let counter = meter
            .u64_counter("scm_gateway.tls.reloads")
            .with_description("Changes of certificates, by outcome: used, or failed and the last good ones stay")
            .build();
        let failing = meter
            .u64_gauge("scm_gateway.tls.reload.failing")
            .with_description(
                "1 while the files of certificates have changed and cannot be used: the last good ones stay",
            )
            .build();
        Self::new(counter, failing, KeyValue::new("side", side))
    }

    fn new(counter: Counter<u64>, failing: Gauge<u64>, of: KeyValue) -> Self {
        let reloads = Self { counter, failing, of };
        reloads.count("success", 0);
        reloads.count("failure", 0);
        reloads.is_failing(false);
        reloads
    }

    /// What changed is in use now.
    pub(crate) fn used(&self) {
        self.count("success", 1);
        self.is_failing(false);
    }

    /// What changed cannot be used.
    pub(crate) fn failed(&self) {
        self.count("failure", 1);
        self.is_failing(true);
    }

    /// What is in use is there again.
    pub(crate) fn recovered(&self) {
        self.is_failing(false);
    }

    fn count(&self, outcome: &'static str, times: u64) {
        self.counter.add(times, &[self.of.clone(), KeyValue::new("outcome", outcome)]);
    }

    fn is_failing(&self, failing: bool) {
        self.failing.record(failing.into(), std::slice::from_ref(&self.of));
    }
}
