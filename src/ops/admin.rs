//! The admin listener in plain HTTP: `/livez`, `/readyz`, `/metrics`, and the pages for operators.

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::ops::{
    readiness::Readiness,
    telemetry::{Format, Telemetry},
};

mod local_host;
mod pages;

use local_host::has_local_host;

pub use pages::Pages;

/// The largest number of connections: a kubelet, a scraper and a few people.
const MAX_CONNECTIONS: usize = 256;

/// The longest duration of a connection, which serves one request, so that stalled clients do not lock out a kubelet.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest time until the request headers are complete.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(1);

/// The delay after a failed accept.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Keeps pages of other origins from embedding a response. `http` has no constant for this name.
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The service of the admin listener.
pub struct Admin {
    telemetry: Arc<Telemetry>,
    readiness: Arc<Readiness>,
    /// Whether `admin.listen` is a loopback address, which no scraper reaches by a name in DNS.
    is_loopback: bool,
    /// `None` if `admin.pages` is off.
    pages: Option<Pages>,
}

impl Admin {
    /// Creates the service of a listener at this address. Without `pages` it has only what machines request.
    pub fn new(
        telemetry: Arc<Telemetry>,
        readiness: Arc<Readiness>,
        address: IpAddr,
        pages: Option<Pages>,
    ) -> Arc<Self> {
        Arc::new(Self { telemetry, readiness, is_loopback: address.to_canonical().is_loopback(), pages })
    }

    /// Serves until the future is dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                sleep(ACCEPT_RETRY_DELAY).await;
                continue;
            };
            let admin = self.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(admin.respond(&request))));
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .keep_alive(false)
                    .header_read_timeout(HEADER_READ_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service);
                let _ = timeout(CONNECTION_TIMEOUT, connection).await; // the client sees the failure
                drop(permit);
            });
        }
    }

    fn respond(&self, request: &Request<Incoming>) -> Response<String> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "live\n"),
            "/readyz" => match self.readiness.now() {
                Ok(()) => text(StatusCode::OK, "ready\n"),
                Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", reason.name())),
            },
            "/metrics" if self.is_loopback && !has_local_host(request) => misdirected(),
            "/metrics" => self.metrics(Format::accepted(request.headers())),
            _ => self.pages.as_ref().and_then(|pages| pages.respond(request)).unwrap_or_else(|| self.not_found()),
        }
    }

    /// Lists the paths that exist.
    fn not_found(&self) -> Response<String> {
        let pages = if self.pages.is_some() { &Pages::PATHS.join(" ") } else { "(admin.pages is off)" };
        text(StatusCode::NOT_FOUND, format!("/livez /readyz /metrics {pages}\n"))
    }

    fn metrics(&self, format: Format) -> Response<String> {
        let Ok(page) = self.telemetry.exposition(format) else {
            return text(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be gathered\n");
        };
        let mut response = Response::new(page);
        response.headers_mut().extend([
            (header::CONTENT_TYPE, HeaderValue::from_static(format.content_type())),
            (header::VARY, HeaderValue::from_name(header::ACCEPT)),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("same-origin")),
        ]);
        response
    }
}

/// Returns the response to a request for a host that is not this listener.
fn misdirected() -> Response<String> {
    let text = "open this page at an IP address or localhost, for example through a port forward\n";
    self::text(StatusCode::MISDIRECTED_REQUEST, text)
}

fn text(status: StatusCode, body: impl Into<String>) -> Response<String> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}
