//! Counts reloads of credentials and certificates, and keeps whether the last one failed.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Meter},
};

/// Whether the last reload failed: for the status page, which shows what the metric says.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReloadState(Arc<AtomicBool>);

impl ReloadState {
    /// Returns whether changed files or newer credentials cannot be used.
    pub(crate) fn is_failing(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// The reloads of one project's credentials, or of the certificates of one side. All series exist from the start, so
/// that a rate sees the first reload.
pub(crate) struct ReloadMetrics {
    counter: Counter<u64>,
    failing: Gauge<u64>,
    of: KeyValue,
    state: ReloadState,
}

impl ReloadMetrics {
    /// Creates the metrics of a project's credentials, which set `state`.
    pub(crate) fn of_credentials(meter: &Meter, project_id: Arc<str>, state: ReloadState) -> Self {
        let counter = meter
            .u64_counter("scm_gateway.credentials.reloads")
            .with_description("Reloads of credentials, by outcome; after a failure the previous ones stay in use")
            .build();
        let failing = meter
            .u64_gauge("scm_gateway.credentials.reload.failing")
            .with_description("1 while changed credentials cannot be read and the previous ones stay in use")
            .build();
        Self::new(counter, failing, KeyValue::new("scm.project_id", project_id), state)
    }

    /// Creates the metrics of the certificates of `side`, which set `state`.
    pub(crate) fn of_certificates(meter: &Meter, side: &'static str, state: ReloadState) -> Self {
        let counter = meter
            .u64_counter("scm_gateway.tls.reloads")
            .with_description("Reloads of certificates, by outcome; after a failure the previous ones stay in use")
            .build();
        let failing = meter
            .u64_gauge("scm_gateway.tls.reload.failing")
            .with_description("1 while changed certificate files cannot be used and the previous ones stay in use")
            .build();
        Self::new(counter, failing, KeyValue::new("side", side), state)
    }

    fn new(counter: Counter<u64>, failing: Gauge<u64>, of: KeyValue, state: ReloadState) -> Self {
        let metrics = Self { counter, failing, of, state };
        metrics.count("success", 0);
        metrics.count("failure", 0);
        metrics.set_failing(false);
        metrics
    }

    /// Counts a reload whose new content is in use.
    pub(crate) fn applied(&self) {
        self.set_failing(false);
        self.count("success", 1);
    }

    /// Counts a reload whose new content cannot be used.
    pub(crate) fn failed(&self) {
        self.set_failing(true);
        self.count("failure", 1);
    }

    /// Ends a failure without a reload: the files have the content again that is in use.
    pub(crate) fn recovered(&self) {
        self.set_failing(false);
    }

    fn count(&self, outcome: &'static str, times: u64) {
        self.counter.add(times, &[self.of.clone(), KeyValue::new("outcome", outcome)]);
    }

    fn set_failing(&self, failing: bool) {
        self.state.0.store(failing, Relaxed);
        self.failing.record(failing.into(), std::slice::from_ref(&self.of));
    }
}
