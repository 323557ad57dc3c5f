//! The HTTP client of the OTLP exporters.

use std::mem;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response,
    header::{CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT},
};
use opentelemetry_http::{HttpClient, HttpError};
use reqwest::redirect;
use secrecy::ExposeSecret as _;
use tokio::{
    runtime::{self, Runtime},
    task::yield_now,
};

use super::StartError;
use crate::config::Otlp;

/// Sends the configured headers and no others. The exporter also reads the variable of headers, and would send some
/// that the configuration has rejected.
#[derive(Debug)]
pub(super) struct OtlpClient {
    client: reqwest::Client,
    headers: HeaderMap,
    /// Runs each export on the thread of the SDK that waits for it. There is one until the client is dropped.
    runtime: Option<Runtime>,
}

impl OtlpClient {
    pub(super) fn new(otlp: &Otlp) -> Result<Self, StartError> {
        let client = client(otlp).map_err(|_| StartError::Http)?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(|_| StartError::Http)?;
        Ok(Self { client, headers: headers(otlp), runtime: Some(runtime) })
    }
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
        let runtime = self.runtime.as_ref().expect("the client is not dropped");
        Box::pin(async {
            runtime.block_on(async {
                see_closed_connections().await;
                self.client.send_bytes(request).await
            })
        })
    }
}

impl Drop for OtlpClient {
    fn drop(&mut self) {
        // A runtime that is dropped waits for its threads, which panics on a thread of another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Lets the pool drop the connections that the collector has closed since the last export, when nothing ran: the first turn
/// of the runtime polls the sockets, the second the tasks of the connections.
async fn see_closed_connections() {
    yield_now().await;
    yield_now().await;
}

/// Creates a client that sends headers, which may hold an API key, only to the collector.
fn client(otlp: &Otlp) -> reqwest::Result<reqwest::Client> {
    let mut builder =
        reqwest::Client::builder().redirect(redirect::Policy::none()).referer(false).no_proxy().timeout(otlp.timeout);
    if let Some(roots) = &otlp.tls.roots {
        builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(roots.as_bytes())?);
    }
    if let Some(identity) = &otlp.tls.identity {
        builder = builder.identity(reqwest::Identity::from_pem(identity.expose_secret().as_bytes())?);
    }
    builder.build()
}

/// Returns the headers of exports. Their `Debug` is redacted.
pub(super) fn headers(otlp: &Otlp) -> HeaderMap {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{OtlpProtocol, OtlpTls};

    fn otlp() -> Otlp {
        Otlp {
            protocol: OtlpProtocol::HttpProtobuf,
            endpoint: "http://collector:4318".to_owned(),
            timeout: std::time::Duration::from_secs(10),
            gzip: false,
            tls: OtlpTls::default(),
            headers: vec![("api-key".to_owned(), "s3cr3t".into())],
        }
    }

    #[test]
    fn debug_output_has_no_header_values() {
        let client = OtlpClient::new(&otlp()).unwrap();
        assert_eq!(client.headers["api-key"], "s3cr3t");
        let shown = format!("{client:?} {:?}", otlp());
        assert!(shown.contains("api-key") && !shown.contains("s3cr3t"), "{shown}");
    }

    #[tokio::test]
    async fn the_client_can_be_dropped_on_a_thread_of_a_runtime() {
        drop(OtlpClient::new(&otlp()).unwrap());
    }
}
