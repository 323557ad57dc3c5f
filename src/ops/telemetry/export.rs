//! The OTLP exporters. They use only the configuration, although the libraries also read the environment.

use opentelemetry_http::HttpClient;
use opentelemetry_otlp::{
    Compression, ExporterBuildError, MetricExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig,
    WithTonicConfig,
    tonic_types::{
        metadata::MetadataMap,
        transport::{Certificate, ClientTlsConfig, Identity},
    },
};
use opentelemetry_sdk::{error::OTelSdkError, metrics::Temporality, trace};
use secrecy::ExposeSecret as _;

use crate::config::{self, Otlp, OtlpProtocol, OtlpTls};

mod client;
mod encode;
mod spans;

use client::{OtlpClient, headers};
use spans::{Body, SpanClient, Spans};

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
    /// The metrics registry does not accept a metric.
    #[error("metrics: {0}")]
    Registry(#[from] prometheus::Error),
}

pub(super) fn spans(otlp: &Otlp) -> Result<impl trace::SpanExporter + use<>, StartError> {
    let builder = SpanExporter::builder();
    Ok(match otlp.protocol {
        OtlpProtocol::Grpc => Spans::over_grpc(over_grpc(builder.with_tonic(), otlp).build()?),
        OtlpProtocol::HttpProtobuf => {
            let body = Body::new(otlp.gzip);
            let client = SpanClient { client: OtlpClient::new(otlp)?, body: body.clone() };
            Spans::over_http(over_http(builder.with_http(), otlp, client).build()?, body)
        }
    })
}

pub(super) fn metrics(otlp: &Otlp, temporality: config::Temporality) -> Result<MetricExporter, StartError> {
    let builder = MetricExporter::builder().with_temporality(match temporality {
        config::Temporality::Cumulative => Temporality::Cumulative,
        config::Temporality::Delta => Temporality::Delta,
        config::Temporality::LowMemory => Temporality::LowMemory,
    });
    Ok(match otlp.protocol {
        OtlpProtocol::Grpc => over_grpc(builder.with_tonic(), otlp).build()?,
        OtlpProtocol::HttpProtobuf => over_http(builder.with_http(), otlp, OtlpClient::new(otlp)?).build()?,
    })
}

fn over_grpc<B: WithExportConfig + WithTonicConfig>(builder: B, otlp: &Otlp) -> B {
    let builder = builder.with_endpoint(&otlp.endpoint).with_timeout(otlp.timeout).with_tls_config(grpc_tls(&otlp.tls));
    let builder = if otlp.gzip { builder.with_compression(Compression::Gzip) } else { builder };
    // The exporter also reads the variable of headers, and would send some that the configuration has rejected.
    let metadata = MetadataMap::from_headers(headers(otlp));
    builder.with_interceptor(move |mut request: tonic::Request<()>| {
        *request.metadata_mut() = metadata.clone();
        Ok(request)
    })
}

fn grpc_tls(tls: &OtlpTls) -> ClientTlsConfig {
    let config = match &tls.roots {
        Some(roots) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(roots)),
        None => ClientTlsConfig::new().with_enabled_roots(),
    };
    match &tls.identity {
        // The certificates and the key are in one text.
        Some(identity) => config.identity(Identity::from_pem(identity.expose_secret(), identity.expose_secret())),
        None => config,
    }
}

fn over_http<B: WithExportConfig + WithHttpConfig>(builder: B, otlp: &Otlp, client: impl HttpClient + 'static) -> B {
    let builder = builder.with_protocol(Protocol::HttpBinary).with_endpoint(&otlp.endpoint).with_timeout(otlp.timeout);
    let builder = if otlp.gzip { builder.with_compression(Compression::Gzip) } else { builder };
    builder.with_http_client(client)
}
