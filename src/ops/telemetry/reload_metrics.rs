//! Counts reloads of credentials and certificates.

use std::sync::Arc;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Meter},
};

/// The reloads of one project's credentials, or of the certificates of one side. All series exist from the start, so
/// that a rate sees the first reload.
pub(crate) struct ReloadMetrics {
    counter: Counter<u64>,
    failing: Gauge<u64>,
    of: KeyValue,
}

impl ReloadMetrics {
    /// Creates the metrics of a project's credentials.
    pub(crate) fn of_credentials(meter: &Meter, project_id: Arc<str>) -> Self {
        let counter = meter
            .u64_counter("scm_gateway.credentials.reloads")
            .with_description("Reloads of credentials, by outcome; after a failure the previous ones stay in use")
            .build();
        let failing = meter
            .u64_gauge("scm_gateway.credentials.reload.failing")
            .with_description("1 while changed credentials cannot be read and the previous ones stay in use")
            .build();
        Self::new(counter, failing, KeyValue::new("scm.project_id", project_id))
    }

    /// Creates the metrics of the certificates of `side`.
    pub(crate) fn of_certificates(meter: &Meter, side: &'static str) -> Self {
        let counter = meter
            .u64_counter("scm_gateway.tls.reloads")
            .with_description("Reloads of certificates, by outcome; after a failure the previous ones stay in use")
            .build();
        let failing = meter
            .u64_gauge("scm_gateway.tls.reload.failing")
            .with_description("1 while changed certificate files cannot be used and the previous ones stay in use")
            .build();
        Self::new(counter, failing, KeyValue::new("side", side))
    }

    fn new(counter: Counter<u64>, failing: Gauge<u64>, of: KeyValue) -> Self {
        let metrics = Self { counter, failing, of };
        metrics.count("success", 0);
        metrics.count("failure", 0);
        metrics.set_failing(false);
        metrics
    }

    /// Counts a reload whose new content is in use.
    pub(crate) fn applied(&self) {
        self.count("success", 1);
        self.set_failing(false);
    }

    /// Counts a reload whose new content cannot be used.
    pub(crate) fn failed(&self) {
        self.count("failure", 1);
        self.set_failing(true);
    }

    /// Ends a failure without a reload: the files have the content again that is in use.
    pub(crate) fn recovered(&self) {
        self.set_failing(false);
    }

    fn count(&self, outcome: &'static str, times: u64) {
        self.counter.add(times, &[self.of.clone(), KeyValue::new("outcome", outcome)]);
    }

    fn set_failing(&self, failing: bool) {
        self.failing.record(failing.into(), std::slice::from_ref(&self.of));
    }
}
