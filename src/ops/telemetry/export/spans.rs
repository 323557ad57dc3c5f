//! The exporter of spans.

use std::{
    io::Write as _,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use flate2::write::GzEncoder;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response, header::CONTENT_ENCODING};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::SpanData,
};

use super::encode::encode;

/// Exports spans with the exporter of the library, which decides on retries.
///
/// Its conversion of spans is half of what tracing costs: 12,000 instructions a call. Over HTTP it therefore gets no
/// spans, and its client sends a body that is encoded here.
#[derive(Debug)]
pub(super) struct Spans {
    exporter: SpanExporter,
    /// For OTLP over HTTP.
    encoder: Option<Encoder>,
}

#[derive(Debug)]
struct Encoder {
    resource: Resource,
    body: Body,
}

/// The body of the requests of the current export.
#[derive(Debug, Clone)]
pub(super) struct Body {
    bytes: Arc<Mutex<Bytes>>,
    gzip: bool,
}

impl Body {
    /// Creates an empty body.
    pub(super) fn new(gzip: bool) -> Self {
        Self { bytes: Arc::default(), gzip }
    }

    fn lock(&self) -> MutexGuard<'_, Bytes> {
        self.bytes.lock().expect("no panic while the lock is held")
    }
}

impl Spans {
    pub(super) const fn over_grpc(exporter: SpanExporter) -> Self {
        Self { exporter, encoder: None }
    }

    /// Creates an exporter whose client is a [`SpanClient`] with this body.
    pub(super) fn over_http(exporter: SpanExporter, body: Body) -> Self {
        let resource = Resource::builder_empty().build();
        Self { exporter, encoder: Some(Encoder { resource, body }) }
    }
}

impl opentelemetry_sdk::trace::SpanExporter for Spans {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let Some(Encoder { resource, body }) = &self.encoder else {
            return self.exporter.export(batch).await;
        };
        let message = encode(resource, &batch);
        drop(batch);
        *body.lock() = if body.gzip { compress(&message)? } else { message }.into();
        let result = self.exporter.export(Vec::new()).await;
        *body.lock() = Bytes::new();
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        match &mut self.encoder {
            Some(encoder) => encoder.resource = resource.clone(),
            None => self.exporter.set_resource(resource),
        }
    }
}

fn compress(message: &[u8]) -> Result<Vec<u8>, OTelSdkError> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    let compressed = encoder.write_all(message).and_then(|()| encoder.finish());
    compressed.map_err(|error| OTelSdkError::InternalFailure(error.to_string()))
}

/// Sends a body instead of the one of the library's exporter.
#[derive(Debug)]
pub(super) struct SpanClient<C> {
    pub(super) client: C,
    pub(super) body: Body,
}

impl<C: HttpClient> HttpClient for SpanClient<C> {
    fn send_bytes<'a, 'b>(&'a self, mut request: Request<Bytes>) -> BoxFuture<'b, Result<Response<Bytes>, HttpError>>
    where
        'a: 'b,
    {
        request.body_mut().clone_from(&self.body.lock());
        // The library's exporter also reads the variables of compression, and by other rules.
        request.headers_mut().remove(CONTENT_ENCODING);
        if self.body.gzip {
            request.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        self.client.send_bytes(request)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// Responds with the body and the encoding of the request.
    #[derive(Debug)]
    struct Echo;

    impl HttpClient for Echo {
        fn send_bytes<'a, 'b>(&'a self, request: Request<Bytes>) -> BoxFuture<'b, Result<Response<Bytes>, HttpError>>
        where
            'a: 'b,
        {
            let (parts, body) = request.into_parts();
            let mut response = Response::new(body);
            *response.headers_mut() = parts.headers;
            async { Ok(response) }.boxed()
        }
    }

    #[test]
    fn encoding_is_that_of_the_body_and_not_of_the_library() {
        for (library, gzip) in [(true, false), (false, true), (true, true), (false, false)] {
            let body = Body::new(gzip);
            *body.lock() = Bytes::from_static(b"spans");
            let mut request = Request::new(Bytes::new());
            if library {
                request.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            let response = SpanClient { client: Echo, body }.send_bytes(request).now_or_never().unwrap().unwrap();
            assert_eq!(response.headers().get(CONTENT_ENCODING).is_some(), gzip, "{library}");
            assert_eq!(response.body(), "spans");
        }
    }
}
