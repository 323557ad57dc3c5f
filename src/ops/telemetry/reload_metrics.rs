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

/// The gauge that says whether the last reload failed.
pub(crate) struct FailingGauge {
    gauge: Gauge<u64>,
    of: KeyValue,
    state: ReloadState,
}

impl FailingGauge {
    /// Creates the gauge of a project's credentials, which sets `state`.
    pub(crate) fn of_credentials(meter: &Meter, project_id: Arc<str>, state: ReloadState) -> Self {
        let gauge = meter
            .u64_gauge("scm_gateway.credentials.reload.failing")
            .with_description("1 while changed or newer credentials cannot be loaded and the previous ones stay in use")
            .build();
        Self::new(gauge, KeyValue::new("scm.project_id", project_id), state)
    }

    fn new(gauge: Gauge<u64>, of: KeyValue, state: ReloadState) -> Self {
        let failing = Self { gauge, of, state };
        failing.set(false);
        failing
    }

    /// Sets whether the last reload failed.
    pub(crate) fn set(&self, failing: bool) {
        self.state.0.store(failing, Relaxed);
        self.gauge.record(failing.into(), std::slice::from_ref(&self.of));
    }
}

/// The reloads of one project's credentials, or of the certificates of one side. All series exist from the start, so
/// that a rate sees the first reload.
pub(crate) struct ReloadMetrics {
    counter: Counter<u64>,
    failing: FailingGauge,
}

impl ReloadMetrics {
    /// Creates the metrics of a project's credentials, which set `state`.
    pub(crate) fn of_credentials(meter: &Meter, project_id: Arc<str>, state: ReloadState) -> Self {
        let counter = meter
            .u64_counter("scm_gateway.credentials.reloads")
            .with_description("Reloads of credentials, by outcome; after a failure the previous ones stay in use")
            .build();
        Self::new(counter, FailingGauge::of_credentials(meter, project_id, state))
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
        Self::new(counter, FailingGauge::new(failing, KeyValue::new("side", side), state))
    }

    fn new(counter: Counter<u64>, failing: FailingGauge) -> Self {
        let metrics = Self { counter, failing };
        metrics.count("success", 0);
        metrics.count("failure", 0);
        metrics
    }

    /// Counts a reload whose new content is in use.
    pub(crate) fn applied(&self) {
        self.failing.set(false);
        self.count("success", 1);
    }

    /// Counts a reload whose new content cannot be used.
    pub(crate) fn failed(&self) {
        self.failing.set(true);
        self.count("failure", 1);
    }

    /// Ends a failure without a reload: the files have the content again that is in use.
    pub(crate) fn recovered(&self) {
        self.failing.set(false);
    }

    fn count(&self, outcome: &'static str, times: u64) {
        self.counter.add(times, &[self.failing.of.clone(), KeyValue::new("outcome", outcome)]);
    }
}
