//! The OTLP exporters. They use only the configuration, and lost telemetry is counted.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use opentelemetry::{Context, KeyValue, metrics::Meter};
use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
    tonic_types::{metadata::MetadataMap, transport::ClientTlsConfig},
};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    metrics::{Temporality, data::ResourceMetrics, exporter::PushMetricExporter},
    trace::{Span, SpanData, SpanProcessor},
};
use reqwest::{blocking, redirect};
use secrecy::ExposeSecret as _;

use crate::config::{Otlp, OtlpProtocol};

/// Telemetry cannot be started as configured.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The exporter cannot be created.
    #[error("OTLP exporter: {0}")]
    Otlp(#[from] ExporterBuildError),
    /// The HTTP client of an exporter cannot be created.
    #[error("OTLP exporter: no HTTP client can be made; are the system's CA certificates there?")]
    Http,
    /// The metrics registry cannot be created.
    #[error("metrics: {0}")]
    Metrics(#[from] OTelSdkError),
}

pub(super) fn spans(otlp: &Otlp) -> Result<SpanExporter, StartError> {
    let builder = SpanExporter::builder();
    Ok(match otlp.protocol {
        OtlpProtocol::Grpc => over_grpc(builder.with_tonic(), otlp).build()?,
        OtlpProtocol::HttpProtobuf => over_http(builder.with_http(), otlp)?.build()?,
    })
}

pub(super) fn metrics(otlp: &Otlp) -> Result<MetricExporter, StartError> {
    let builder = MetricExporter::builder();
    Ok(match otlp.protocol {
        OtlpProtocol::Grpc => over_grpc(builder.with_tonic(), otlp).build()?,
        OtlpProtocol::HttpProtobuf => over_http(builder.with_http(), otlp)?.build()?,
    })
}

fn over_grpc<B: WithExportConfig + WithTonicConfig>(builder: B, otlp: &Otlp) -> B {
    let tls = ClientTlsConfig::new().with_enabled_roots();
    let builder = builder.with_endpoint(&otlp.endpoint).with_timeout(otlp.timeout);
    builder.with_metadata(metadata(otlp)).with_tls_config(tls)
}

fn over_http<B: WithExportConfig + WithHttpConfig>(builder: B, otlp: &Otlp) -> Result<B, StartError> {
    let builder = builder.with_protocol(Protocol::HttpBinary).with_endpoint(&otlp.endpoint).with_timeout(otlp.timeout);
    Ok(builder.with_headers(headers(otlp)).with_http_client(http_client(otlp.timeout)?))
}

fn headers(otlp: &Otlp) -> HashMap<String, String> {
    otlp.headers.iter().map(|(name, value)| (name.clone(), value.expose_secret().to_owned())).collect()
}

fn metadata(otlp: &Otlp) -> MetadataMap {
    let headers: Result<http::HeaderMap, http::Error> = (&headers(otlp)).try_into();
    MetadataMap::from_headers(headers.expect("the configuration checks the headers"))
}

/// Creates a client that sends headers, which may hold an API key, only to the collector. The client has its own
/// runtime and therefore has to be created outside of the caller's.
fn http_client(timeout: Duration) -> Result<blocking::Client, StartError> {
    let builder =
        blocking::Client::builder().redirect(redirect::Policy::none()).referer(false).no_proxy().timeout(timeout);
    let client = std::thread::spawn(move || builder.build()).join();
    client.map_err(|_| StartError::Http)?.map_err(|_| StartError::Http)
}

/// The outcomes of exports. Spans are counted before and after the queue, because the difference is queued or lost.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcomes(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    spans_ended: AtomicU64,
    spans: Outcome,
    metrics: Outcome,
}

/// The outcomes of exports of one signal.
#[derive(Debug, Default)]
struct Outcome {
    exported: AtomicU64,
    failed: AtomicU64,
    /// Whether the last export failed.
    failing: AtomicBool,
}

impl Outcomes {
    /// Wraps an exporter or processor to count its outcomes.
    pub(super) fn counted<T>(&self, inner: T) -> Counted<T> {
        Counted { inner, outcomes: self.clone() }
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
            |c| vec![("ended", &c.spans_ended), ("exported", &c.spans.exported), ("failed", &c.spans.failed)],
        );
        register(
            "scm_gateway.telemetry.metric_exports",
            "{export}",
            "Exports of all metrics by state: exported, failed",
            |c| vec![("exported", &c.metrics.exported), ("failed", &c.metrics.failed)],
        );
    }

    /// Counts an export, and logs when exports of this signal start to fail and when they recover. The collector's
    /// error is omitted, because it may hold any data.
    fn exported(&self, signal: &'static str, result: &OTelSdkResult, count: usize, outcome: &Outcome) {
        let failed = result.is_err();
        if failed { &outcome.failed } else { &outcome.exported }.fetch_add(count as u64, Relaxed);
        match (outcome.failing.swap(failed, Relaxed), failed) {
            (false, true) => tracing::warn!(signal, "telemetry export failed, data is lost"),
            (true, false) => tracing::info!(signal, "telemetry export recovered"),
            _ => {}
        }
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
        let spans = batch.len();
        let result = self.inner.export(batch).await;
        self.outcomes.exported("spans", &result, spans, &self.outcomes.0.spans);
        result
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
        if span.span_context.is_sampled() {
            self.outcomes.0.spans_ended.fetch_add(1, Relaxed);
        }
        self.inner.on_end(span);
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
        let result = self.inner.export(metrics).await;
        self.outcomes.exported("metrics", &result, 1, &self.outcomes.0.metrics);
        result
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
