//! A histogram of durations whose series are found by what tells them apart: the SDK would hash and compare all labels of
//! each measurement, once for each reader.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{BoundHistogram, Histogram},
};

/// What tells the series of `rpc.server.call.duration` apart.
#[derive(PartialEq, Eq, Hash)]
pub struct CallSeries {
    /// The full name of the RPC.
    pub rpc: &'static str,
    /// The name of the gRPC status.
    pub status: &'static str,
    /// The reason of `google.rpc.ErrorInfo`.
    pub reason: Option<&'static str>,
}

/// What tells the series of `http.client.request.duration` apart.
#[derive(PartialEq, Eq, Hash)]
pub struct RequestSeries {
    /// The full name of the RPC.
    pub rpc: &'static str,
    /// The id of the project.
    pub project: Arc<str>,
    /// The HTTP status, if an answer came.
    pub status: Option<u16>,
    /// What failed, where the status does not say so.
    pub failure: Option<&'static str>,
}

/// A histogram in seconds, with a series for each `K` that was measured: of few.
pub struct Durations<K> {
    histogram: Histogram<f64>,
    series: RwLock<HashMap<K, BoundHistogram<f64>>>,
}

impl<K: Eq + Hash> Durations<K> {
    pub(super) fn new(histogram: Histogram<f64>) -> Self {
        Self { histogram, series: RwLock::default() }
    }

    /// Counts one of this series. Its labels are asked for the first time.
    pub fn record(&self, duration: Duration, series: K, labels: impl FnOnce() -> Vec<KeyValue>) {
        let seconds = duration.as_secs_f64();
        if let Some(bound) = self.series.read().unwrap_or_else(PoisonError::into_inner).get(&series) {
            return bound.record(seconds);
        }
        let bound = self.histogram.bind(&labels());
        bound.record(seconds);
        self.series.write().unwrap_or_else(PoisonError::into_inner).insert(series, bound);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use opentelemetry::{KeyValue, metrics::MeterProvider as _};
    use opentelemetry_sdk::metrics::SdkMeterProvider;
    use prometheus::{Registry, TextEncoder};

    use super::Durations;

    #[test]
    fn each_series_is_counted_with_the_labels_that_it_was_given_first() {
        let registry = Registry::new();
        let reader = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build().unwrap();
        let provider = SdkMeterProvider::builder().with_reader(reader).build();
        let durations = Durations::new(provider.meter("test").f64_histogram("took").build());
        for (series, label) in [(1, "one"), (2, "two"), (1, "never asked for")] {
            durations.record(Duration::from_millis(1500), series, || vec![KeyValue::new("label", label)]);
        }
        let page = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let counts: Vec<_> = page.lines().filter(|line| line.starts_with("took_count")).collect();
        assert_eq!(counts.len(), 2, "{page}");
        for (label, count) in [("one", 2), ("two", 1)] {
            let line = counts.iter().find(|line| line.contains(&format!("label=\"{label}\""))).unwrap();
            assert!(line.ends_with(&format!(" {count}")), "{line}");
        }
        let sum = page.lines().find(|line| line.starts_with("took_sum") && line.contains("one")).unwrap();
        assert!(sum.ends_with(" 3"), "{sum}");
    }
}
