//! OpenTelemetry: the tracer, the meter, the exporters, and the flush on shutdown.
//!
//! Each gateway in a process has its own providers; none is global. Spans use the OpenTelemetry API. `tracing` is only
//! for log lines (`telemetry/log.rs`).

use std::{sync::Arc, time::Duration};

use opentelemetry::{
    Context, KeyValue,
    metrics::{Meter, MeterProvider as _},
    trace::{Span as _, TraceContextExt as _, TracerProvider as _},
};
use opentelemetry_sdk::{
    Resource,
    metrics::{PeriodicReader, SdkMeterProvider},
    resource::TelemetryResourceDetector,
    trace::{
        BatchConfig, BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span, SpanLimits,
    },
};

use crate::{config, ops::status};

pub mod attribute;
mod duration_histogram;
mod export;
mod exposition;
pub mod log;
mod outcomes;
#[cfg(target_os = "linux")]
mod process;
pub mod reload_metrics;
mod target_info;
pub mod traceparent;

pub use duration_histogram::{DurationHistogram, LabelSet};
pub use export::StartError;
pub use exposition::Format;
use outcomes::Outcomes;
use target_info::target_info;

/// The name of the instrumentation scope.
const SCOPE: &str = "scm-gateway";

/// The timeout of the flush on shutdown. Telemetry that is not exported by then is lost.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Bucket bounds in seconds, as the semantic conventions recommend for durations of calls.
const DURATION_BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// The telemetry of a gateway.
pub struct Telemetry {
    /// The tracer for spans.
    pub tracer: SdkTracer,
    /// The meter for instruments.
    pub meter: Meter,
    traces: SdkTracerProvider,
    metrics: SdkMeterProvider,
    registry: prometheus::Registry,
    outcomes: Outcomes,
}

impl Telemetry {
    /// Starts the telemetry of `config`. Requires a tokio runtime, which runs the OTLP/gRPC connections.
    pub fn start(config: &config::Telemetry) -> Result<Self, export::StartError> {
        let resource = resource(config);
        let registry = prometheus::Registry::new();
        let outcomes = Outcomes::new(config);
        let metrics = meter_provider(config, resource.clone(), &registry, &outcomes)?;
        let meter = metrics.meter(SCOPE);
        outcomes.register_metrics(&meter);
        log::register_metrics(&meter);
        let traces = tracer_provider(config, resource, &outcomes)?;
        Ok(Self { tracer: traces.tracer(SCOPE), meter, traces, metrics, registry, outcomes })
    }

    /// Creates a histogram of durations in seconds.
    pub fn durations<S: LabelSet>(&self, name: &'static str, description: &'static str) -> Arc<DurationHistogram<S>> {
        let histogram = self.meter.f64_histogram(name).with_unit("s").with_description(description);
        Arc::new(DurationHistogram::new(histogram.with_boundaries(DURATION_BUCKETS.to_vec()).build()))
    }

    /// Starts the telemetry of `config` without exporters, after checking that they can be created. A dropped metric
    /// reader would export to the collector.
    pub fn check(config: &config::Telemetry) -> Result<Self, export::StartError> {
        config.traces.as_ref().map(export::spans).transpose()?;
        config.metrics.as_ref().map(|otlp| export::metrics(otlp, config.temporality)).transpose()?;
        Self::start(&config::Telemetry { traces: None, metrics: None, ..config.clone() })
    }

    /// Returns all metrics in this format.
    pub fn exposition(&self, format: Format) -> Result<String, prometheus::Error> {
        format.encode(&self.registry.gather())
    }

    /// Returns what was exported and lost, for the status page.
    pub fn status(&self) -> status::Telemetry {
        let (spans, metric_exports) = self.outcomes.status();
        status::Telemetry { spans, metric_exports, log_lines_dropped: log::dropped_lines() }
    }

    /// Exports the remaining telemetry within `limit`.
    pub async fn shutdown(&self, limit: Duration) {
        let traces = self.traces.clone();
        let metrics = self.metrics.clone();
        let flush_traces = tokio::task::spawn_blocking(move || traces.shutdown_with_timeout(limit));
        let flush_metrics = tokio::task::spawn_blocking(move || metrics.shutdown_with_timeout(limit));
        let both = async { tokio::join!(flush_traces, flush_metrics) };
        if tokio::time::timeout(limit, both).await.is_err() {
            tracing::warn!("telemetry flush timed out, the remaining data is lost");
        }
    }
}

/// Returns a context with a span. Of a span that is not recorded it keeps only what children and requests need.
#[allow(clippy::disallowed_methods, reason = "the one place where spans enter a context")]
pub fn with_span(parent: &Context, span: Span) -> Context {
    if span.is_recording() {
        parent.with_span(span)
    } else {
        parent.with_remote_span_context(span.span_context().clone())
    }
}

/// Returns the resource. It does not depend on the environment, from which the SDK would also take attributes that the
/// configuration has rejected.
fn resource(config: &config::Telemetry) -> Resource {
    let attributes = config.resource_attributes.iter().cloned();
    Resource::builder_empty()
        .with_attributes(attributes.map(|(key, value)| KeyValue::new(key, value)))
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_service_name(config.service_name.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build()
}

fn meter_provider(
    config: &config::Telemetry,
    resource: Resource,
    registry: &prometheus::Registry,
    outcomes: &Outcomes,
) -> Result<SdkMeterProvider, export::StartError> {
    let prometheus =
        opentelemetry_prometheus::exporter().with_registry(registry.clone()).without_target_info().build()?;
    registry.register(Box::new(target_info(&resource)?))?;
    #[cfg(target_os = "linux")]
    registry.register(Box::new(process::ProcessCollector::start()?))?;
    let mut builder = SdkMeterProvider::builder().with_resource(resource).with_reader(prometheus);
    if let Some(otlp) = &config.metrics {
        builder = builder.with_reader(
            PeriodicReader::builder(outcomes.counted(export::metrics(otlp, config.temporality)?))
                .with_interval(config.metric_interval)
                .build(),
        );
    }
    Ok(builder.build())
}

/// Creates the tracer provider. Without an exporter spans are still created, so that requests to SCM carry a
/// `traceparent` with the sampled flag of the caller.
fn tracer_provider(
    config: &config::Telemetry,
    resource: Resource,
    outcomes: &Outcomes,
) -> Result<SdkTracerProvider, export::StartError> {
    let limits = SpanLimits { max_attributes_per_span: config.span_attributes, ..SpanLimits::default() };
    let builder = SdkTracerProvider::builder().with_resource(resource).with_span_limits(limits);
    Ok(match &config.traces {
        Some(otlp) => {
            let exporter = outcomes.counted(export::spans(otlp)?);
            let processor =
                outcomes.counted(BatchSpanProcessor::builder(exporter).with_batch_config(batch(&config.batch)).build());
            builder.with_sampler(sampler(&config.sampler)).with_span_processor(processor).build()
        }
        None => builder.with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOff))).build(),
    })
}

fn batch(config: &config::Batch) -> BatchConfig {
    BatchConfigBuilder::default()
        .with_max_queue_size(config.queue)
        .with_max_export_batch_size(config.export.min(config.queue))
        .with_scheduled_delay(config.delay)
        .build()
}

fn sampler(config: &config::Sampler) -> Sampler {
    match config {
        config::Sampler::AlwaysOn => Sampler::AlwaysOn,
        config::Sampler::AlwaysOff => Sampler::AlwaysOff,
        config::Sampler::TraceIdRatio(ratio) => Sampler::TraceIdRatioBased(*ratio),
        config::Sampler::ParentBased(root) => Sampler::ParentBased(Box::new(sampler(root))),
    }
}
