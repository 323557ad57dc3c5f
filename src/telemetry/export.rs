//! The OTLP exporters, and the counters that tell when telemetry is lost.

use std::{collections::HashMap, time::Duration};

use opentelemetry::{
    Context, KeyValue,
    metrics::{Counter, Meter},
};
use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
    WithTonicConfig as _, tonic_types::metadata::MetadataMap,
};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{Span, SpanData, SpanProcessor},
};
use secrecy::ExposeSecret as _;

use crate::config::{Otlp, OtlpProtocol};

/// Telemetry cannot be set up as configured.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The exporter cannot be made.
    #[error("OTLP exporter: {0}")]
    Otlp(#[from] ExporterBuildError),
    /// The metrics registry cannot be made.
    #[error("metrics: {0}")]
    Metrics(#[from] OTelSdkError),
    /// A header of `OTEL_EXPORTER_OTLP_HEADERS` is none.
    #[error("OTEL_EXPORTER_OTLP_HEADERS: holds a name or value that is no header")]
    Headers,
}

pub(super) fn spans(otlp: &Otlp) -> Result<SpanExporter, StartError> {
    Ok(match otlp.protocol {
        OtlpProtocol::Grpc => SpanExporter::builder()
            .with_tonic()
            .with_endpoint(&otlp.endpoint)
            .with_timeout(otlp.timeout)
            .with_metadata(metadata(otlp)?)
            .build()?,
        OtlpProtocol::HttpProtobuf => SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&otlp.endpoint)
            .with_timeout(otlp.timeout)
            .with_headers(headers(otlp))
            .build()?,
    })
}

pub(super) fn metrics(otlp: &Otlp) -> Result<MetricExporter, StartError> {
    Ok(match otlp.protocol {
        OtlpProtocol::Grpc => MetricExporter::builder()
            .with_tonic()
            .with_endpoint(&otlp.endpoint)
            .with_timeout(otlp.timeout)
            .with_metadata(metadata(otlp)?)
            .build()?,
        OtlpProtocol::HttpProtobuf => MetricExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&otlp.endpoint)
            .with_timeout(otlp.timeout)
            .with_headers(headers(otlp))
            .build()?,
    })
}

fn headers(otlp: &Otlp) -> HashMap<String, String> {
    otlp.headers.iter().map(|(name, value)| (name.clone(), value.expose_secret().to_owned())).collect()
}

fn metadata(otlp: &Otlp) -> Result<MetadataMap, StartError> {
    let headers: http::HeaderMap = (&headers(otlp)).try_into().map_err(|_: http::Error| StartError::Headers)?;
    Ok(MetadataMap::from_headers(headers))
}

/// Counts spans on both sides of the queue: what ended and was not exported is waiting or lost.
#[derive(Debug)]
pub(super) struct Counted<T> {
    inner: T,
    spans: Counter<u64>,
}

impl<E> Counted<E> {
    pub(super) fn new(inner: E, meter: &Meter) -> Self {
        let spans = meter
            .u64_counter("scm_gateway.telemetry.spans")
            .with_unit("{span}")
            .with_description(
                "Spans by state: ended, exported, failed; ended and neither of the others is waiting or lost",
            )
            .build();
        Self { inner, spans }
    }

    /// Puts a processor in front of the exporter, counted likewise.
    pub(super) fn processor<P>(self, make: impl FnOnce(Self) -> P) -> Counted<P> {
        let spans = self.spans.clone();
        Counted { inner: make(self), spans }
    }

    fn count(&self, spans: usize, state: &'static str) {
        self.spans.add(spans as u64, &[KeyValue::new("state", state)]);
    }
}

impl<E: opentelemetry_sdk::trace::SpanExporter> opentelemetry_sdk::trace::SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.inner.export(batch).await;
        self.count(spans, if result.is_ok() { "exported" } else { "failed" });
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
            self.count(1, "ended");
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
