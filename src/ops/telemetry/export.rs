//! The OTLP exporters. They use only the configuration, although the libraries also read the environment.

use std::mem;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response,
    header::{CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT},
};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    Compression, ExporterBuildError, MetricExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig,
    WithTonicConfig,
    tonic_types::{
        metadata::MetadataMap,
        transport::{Certificate, ClientTlsConfig, Identity},
    },
};
use opentelemetry_sdk::{error::OTelSdkError, metrics::Temporality};
use reqwest::{blocking, redirect};
use secrecy::ExposeSecret as _;

use crate::config::{self, Otlp, OtlpProtocol, OtlpTls};

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

pub(super) fn spans(otlp: &Otlp) -> Result<SpanExporter, StartError> {
    let builder = SpanExporter::builder();
    Ok(match otlp.protocol {
        OtlpProtocol::Grpc => over_grpc(builder.with_tonic(), otlp).build()?,
        OtlpProtocol::HttpProtobuf => over_http(builder.with_http(), otlp)?.build()?,
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
        OtlpProtocol::HttpProtobuf => over_http(builder.with_http(), otlp)?.build()?,
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

fn over_http<B: WithExportConfig + WithHttpConfig>(builder: B, otlp: &Otlp) -> Result<B, StartError> {
    let builder = builder.with_protocol(Protocol::HttpBinary).with_endpoint(&otlp.endpoint).with_timeout(otlp.timeout);
    let builder = if otlp.gzip { builder.with_compression(Compression::Gzip) } else { builder };
    Ok(builder.with_http_client(OtlpClient { client: http_client(otlp)?, headers: headers(otlp) }))
}

/// Returns the headers of exports. Their `Debug` is redacted.
fn headers(otlp: &Otlp) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("scm-gateway/", env!("CARGO_PKG_VERSION"))));
    for (name, value) in &otlp.headers {
        let name = HeaderName::try_from(name).expect("the configuration checks the names");
        let mut value = HeaderValue::try_from(value.expose_secret()).expect("the configuration checks the values");
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    headers
}

/// Creates a client that sends headers, which may hold an API key, only to the collector. The client has its own
/// runtime and therefore has to be created outside of the caller's.
fn http_client(otlp: &Otlp) -> Result<blocking::Client, StartError> {
    let mut builder =
        blocking::Client::builder().redirect(redirect::Policy::none()).referer(false).no_proxy().timeout(otlp.timeout);
    if let Some(roots) = &otlp.tls.roots {
        let roots = reqwest::Certificate::from_pem_bundle(roots.as_bytes()).map_err(|_| StartError::Http)?;
        builder = builder.tls_certs_only(roots);
    }
    if let Some(identity) = &otlp.tls.identity {
        let identity = reqwest::Identity::from_pem(identity.expose_secret().as_bytes());
        builder = builder.identity(identity.map_err(|_| StartError::Http)?);
    }
    let client = std::thread::spawn(move || builder.build()).join();
    client.map_err(|_| StartError::Http)?.map_err(|_| StartError::Http)
}

/// Sends the configured headers and no others. The exporter also reads the variable of headers, and would send some
/// that the configuration has rejected.
#[derive(Debug)]
struct OtlpClient {
    client: blocking::Client,
    headers: HeaderMap,
}

impl HttpClient for OtlpClient {
    fn send_bytes<'a, 'b>(&'a self, mut request: Request<Bytes>) -> BoxFuture<'b, Result<Response<Bytes>, HttpError>>
    where
        'a: 'b,
    {
        let of_the_body = mem::replace(request.headers_mut(), self.headers.clone());
        for name in [CONTENT_TYPE, CONTENT_ENCODING] {
            if let Some(value) = of_the_body.get(&name) {
                request.headers_mut().insert(name, value.clone());
            }
        }
        self.client.send_bytes(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_has_no_header_values() {
        let otlp = Otlp {
            protocol: OtlpProtocol::HttpProtobuf,
            endpoint: "http://collector:4318".to_owned(),
            timeout: std::time::Duration::from_secs(10),
            gzip: false,
            tls: OtlpTls::default(),
            headers: vec![("api-key".to_owned(), "s3cr3t".into())],
        };
        let client = OtlpClient { client: http_client(&otlp).unwrap(), headers: headers(&otlp) };
        assert_eq!(client.headers["api-key"], "s3cr3t");
        let shown = format!("{client:?} {otlp:?}");
        assert!(shown.contains("api-key") && !shown.contains("s3cr3t"), "{shown}");
    }
}
