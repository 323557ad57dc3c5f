//! A histogram of durations that finds a series by a typed label set. The SDK would hash and compare all labels of each
//! measurement, once for each reader.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{BoundHistogram, Histogram},
};

/// The typed labels of a series.
pub trait LabelSet: Eq + Hash {
    /// Returns the labels.
    fn labels(&self) -> Vec<KeyValue>;
}

/// A histogram in seconds. Series are never removed, so a label set must have few values.
pub struct DurationHistogram<S> {
    histogram: Histogram<f64>,
    series: RwLock<HashMap<S, BoundHistogram<f64>>>,
}

impl<S: LabelSet> DurationHistogram<S> {
    pub(super) fn new(histogram: Histogram<f64>) -> Self {
        Self { histogram, series: RwLock::default() }
    }

    /// Records a duration in a series.
    pub fn record(&self, duration: Duration, label_set: S) {
        let seconds = duration.as_secs_f64();
        if let Some(bound) = self.series.read().unwrap_or_else(PoisonError::into_inner).get(&label_set) {
            return bound.record(seconds);
        }
        let bound = self.histogram.bind(&label_set.labels());
        bound.record(seconds);
        self.series.write().unwrap_or_else(PoisonError::into_inner).insert(label_set, bound);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use opentelemetry::{KeyValue, metrics::MeterProvider as _};
    use opentelemetry_sdk::metrics::SdkMeterProvider;
    use prometheus::{Registry, TextEncoder};

    use super::{DurationHistogram, LabelSet};

    #[derive(PartialEq, Eq, Hash)]
    struct Label(&'static str);

    impl LabelSet for Label {
        fn labels(&self) -> Vec<KeyValue> {
            vec![KeyValue::new("label", self.0)]
        }
    }

    #[test]
    fn each_series_has_its_labels() {
        let registry = Registry::new();
        let reader = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build().unwrap();
        let provider = SdkMeterProvider::builder().with_reader(reader).build();
        let durations = DurationHistogram::new(provider.meter("test").f64_histogram("took").build());
        for label in ["one", "two", "one"] {
            durations.record(Duration::from_millis(1500), Label(label));
        }
        let page = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for (label, count, sum) in [("one", "2", "3"), ("two", "1", "1.5")] {
            for (name, value) in [("took_count", count), ("took_sum", sum)] {
                let is_sample = |line: &&str| line.starts_with(name) && line.contains(&format!("label=\"{label}\""));
                let lines: Vec<_> = page.lines().filter(is_sample).collect();
                assert_eq!(lines.len(), 1, "{page}");
                assert!(lines[0].ends_with(&format!(" {value}")), "{page}");
            }
        }
    }
}
