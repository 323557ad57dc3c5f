//! Counts the outcomes of exports and the telemetry that is lost.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{
    clock, config,
    ops::status::{Exports, Spans},
};
use opentelemetry::{Context, KeyValue, metrics::Meter};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    metrics::{Temporality, data::ResourceMetrics, exporter::PushMetricExporter},
    trace::{Span, SpanData, SpanProcessor},
};

mod export_log;

use export_log::{Export, Logged};

/// The outcomes of exports. Spans are counted before and after the queue, because the difference is queued or lost.
#[derive(Debug, Clone)]
pub(super) struct Outcomes(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    queue: Queue,
    spans: Outcome,
    metrics: Outcome,
}

/// The queue of spans, which is the library's own: spans that enter are counted here, and those that leave at an export.
#[derive(Debug)]
struct Queue {
    size: u64,
    ended: AtomicU64,
}

/// The outcomes of exports of one signal.
#[derive(Debug)]
struct Outcome {
    signal: &'static str,
    /// The duration of an export that is too slow: half of the timeout.
    slow: Duration,
    exported: AtomicU64,
    failed: AtomicU64,
    /// What is exported at this moment.
    in_flight: AtomicU64,
    logged: Mutex<Logged>,
}

impl Outcome {
    fn new(signal: &'static str, timeout: Option<Duration>) -> Self {
        let slow = timeout.unwrap_or_default() / 2;
        Self {
            signal,
            slow,
            exported: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            logged: Mutex::default(),
        }
    }

    /// Counts an export of `count` spans or of all metrics, and logs what it changes.
    async fn of(
        &self,
        count: usize,
        export: impl Future<Output = OTelSdkResult>,
        queue: Option<&Queue>,
    ) -> OTelSdkResult {
        let started = clock::monotonic();
        let in_flight = InFlight::new(&self.in_flight, count as u64);
        let result = export.await;
        let now = clock::monotonic();
        let took = now - started;
        let failed = result.is_err();
        if failed { &self.failed } else { &self.exported }.fetch_add(count as u64, Relaxed);
        drop(in_flight);
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let (lost, backlog) = queue.map_or((0, false), |queue| queue.lost_and_backlog(self.left(), logged.lost));
        let export = Export { failed, slow: !failed && took > self.slow, lost, backlog };
        for line in logged.after(export, now) {
            line.log(self.signal, took);
        }
        result
    }

    /// Returns the number of spans or exports that were finished.
    fn left(&self) -> u64 {
        self.exported.load(Relaxed) + self.failed.load(Relaxed)
    }

    /// Returns the spans that `queue` has lost until now.
    fn lost(&self, queue: &Queue) -> u64 {
        let logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        queue.lost_and_backlog(self.left() + self.in_flight.load(Relaxed), logged.lost).0
    }
}

/// Counts what is exported at this moment, which has left the queue.
struct InFlight<'a> {
    total: &'a AtomicU64,
    count: u64,
}

impl<'a> InFlight<'a> {
    fn new(total: &'a AtomicU64, count: u64) -> Self {
        total.fetch_add(count, Relaxed);
        Self { total, count }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.total.fetch_sub(self.count, Relaxed);
    }
}

impl Queue {
    /// Returns the number of lost spans, and whether more than half of the queue is in use. `left` is the number of
    /// spans that have left the queue, and `lost` the previous number of lost ones.
    ///
    /// Spans are lost while the queue is full. It stays full during the export that is too slow, so that at its end
    /// all that the queue cannot hold is lost.
    fn lost_and_backlog(&self, left: u64, lost: u64) -> (u64, bool) {
        let waiting = self.ended.load(Relaxed).saturating_sub(left);
        let lost = lost.max(waiting.saturating_sub(self.size));
        (lost, waiting.saturating_sub(lost) > self.size / 2)
    }
}

impl Outcomes {
    pub(super) fn new(config: &config::Telemetry) -> Self {
        Self(Arc::new(Counts {
            queue: Queue { size: config.batch.queue as u64, ended: AtomicU64::new(0) },
            spans: Outcome::new("spans", config.traces.as_ref().map(|otlp| otlp.timeout)),
            metrics: Outcome::new("metrics", config.metrics.as_ref().map(|otlp| otlp.timeout)),
        }))
    }

    /// Wraps an exporter or processor to count its outcomes.
    pub(super) fn counted<T>(&self, inner: T) -> Counted<T> {
        Counted { inner, outcomes: self.clone() }
    }

    /// Returns the counts for the status page.
    pub(super) fn status(&self) -> (Spans, Exports) {
        let Counts { queue, spans, metrics } = &*self.0;
        let of = |count: &AtomicU64| count.load(Relaxed);
        let spans = Spans {
            ended: of(&queue.ended),
            exported: of(&spans.exported),
            failed: of(&spans.failed),
            lost: spans.lost(queue),
        };
        (spans, Exports { exported: of(&metrics.exported), failed: of(&metrics.failed) })
    }

    /// Registers the metrics.
    pub(super) fn register_metrics(&self, meter: &Meter) {
        let register = |name, unit, description, states: fn(&Counts) -> Vec<(&'static str, &AtomicU64)>| {
            let counts = self.0.clone();
            meter
                .u64_observable_counter(name)
                .with_unit(unit)
                .with_description(description)
                .with_callback(move |counter| {
                    for (state, count) in states(&counts) {
                        counter.observe(count.load(Relaxed), &[KeyValue::new("state", state)]);
                    }
                })
                .build();
        };
        register(
            "scm_gateway.telemetry.spans",
            "{span}",
            "Spans by state: ended, exported, failed; ended and neither of the others is waiting or lost",
            |c| vec![("ended", &c.queue.ended), ("exported", &c.spans.exported), ("failed", &c.spans.failed)],
        );
        register(
            "scm_gateway.telemetry.metric_exports",
            "{export}",
            "Exports of all metrics by state: exported, failed",
            |c| vec![("exported", &c.metrics.exported), ("failed", &c.metrics.failed)],
        );
    }
}

/// An exporter or processor with counted outcomes.
#[derive(Debug)]
pub(super) struct Counted<T> {
    inner: T,
    outcomes: Outcomes,
}

impl<E: opentelemetry_sdk::trace::SpanExporter> opentelemetry_sdk::trace::SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let Counts { queue, spans, .. } = &*self.outcomes.0;
        spans.of(batch.len(), self.inner.export(batch), Some(queue)).await
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<P: SpanProcessor> SpanProcessor for Counted<P> {
    fn on_start(&self, span: &mut Span, parent: &Context) {
        self.inner.on_start(span, parent);
    }

    fn on_end(&self, span: SpanData) {
        let is_sampled = span.span_context.is_sampled();
        self.inner.on_end(span);
        // Counted last, so that a span on its way into the queue is never taken for a lost one.
        if is_sampled {
            self.outcomes.0.queue.ended.fetch_add(1, Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<E: PushMetricExporter> PushMetricExporter for Counted<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.outcomes.0.metrics.of(1, self.inner.export(metrics), None).await
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.inner.temporality()
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::error::OTelSdkError;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn success_after_half_of_the_timeout_is_too_slow() {
        let outcome = Outcome::new("metrics", Some(Duration::from_secs(10)));
        let export = async |seconds, result| {
            let export = async {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                result
            };
            let _ = outcome.of(1, export, None).await;
            let logged = outcome.logged.lock().unwrap();
            (logged.slow, logged.failing)
        };
        let failure = || Err(OTelSdkError::InternalFailure(String::new()));
        assert_eq!(export(5, Ok(())).await, (false, false));
        assert_eq!(export(10, failure()).await, (false, true));
        assert_eq!(export(6, Ok(())).await, (true, false));
        assert_eq!(export(0, failure()).await, (true, true));
        assert_eq!(export(0, Ok(())).await, (false, false));
    }

    #[test]
    fn spans_beyond_the_queue_are_lost() {
        let queue = |ended| Queue { size: 10, ended: AtomicU64::new(ended) };
        // Ended spans, spans that left the queue, spans known as lost.
        let table = [
            ((0, 0, 0), (0, false)),
            ((5, 0, 0), (0, false)),
            ((6, 0, 0), (0, true)),
            ((10, 0, 0), (0, true)),
            ((13, 0, 0), (3, true)),
            ((13, 5, 3), (3, false)),
            ((13, 10, 3), (3, false)),
            ((24, 10, 3), (4, true)),
            ((0, 1, 0), (0, false)),
        ];
        for ((ended, left, lost), expected) in table {
            assert_eq!(queue(ended).lost_and_backlog(left, lost), expected, "{ended} {left} {lost}");
        }
    }

    #[test]
    fn status_has_the_spans_that_are_lost_until_now() {
        let queue = Queue { size: 10, ended: AtomicU64::new(13) };
        let counts = Counts { queue, spans: Outcome::new("spans", None), metrics: Outcome::new("metrics", None) };
        let outcomes = Outcomes(Arc::new(counts));
        assert_eq!(outcomes.status().0.lost, 3);
        outcomes.0.queue.ended.store(10, Relaxed);
        assert_eq!(outcomes.status().0.lost, 0, "they wait");
    }

    #[tokio::test]
    async fn spans_that_are_being_exported_have_left_the_queue() {
        let queue = Queue { size: 10, ended: AtomicU64::new(13) };
        let counts = Counts { queue, spans: Outcome::new("spans", None), metrics: Outcome::new("metrics", None) };
        let outcomes = Outcomes(Arc::new(counts));
        let Counts { queue, spans, .. } = &*outcomes.0;
        let lost = || outcomes.status().0.lost;
        let export = async {
            assert_eq!(lost(), 0, "three of them are in this export");
            Ok(())
        };
        spans.of(3, export, Some(queue)).await.unwrap();
        assert_eq!(lost(), 0);
        queue.ended.store(14, Relaxed);
        assert_eq!(lost(), 1);
    }
}
