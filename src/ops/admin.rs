//! The operator's listener, plain HTTP: `/livez`, `/readyz`, `/metrics`.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::ops::{readiness::Readiness, telemetry::Telemetry};

/// Connections at a time: a kubelet, a scraper, a few people.
const MAX_CONNECTIONS: usize = 256;

/// One connection is one question and its answer, within this time: nobody can keep the places from a kubelet.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Within this time the question has to be there: who says nothing keeps nobody waiting for long.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the operator may ask.
pub struct Admin {
    telemetry: Arc<Telemetry>,
    readiness: Arc<Readiness>,
}

impl Admin {
    /// Answers from these.
    pub fn new(telemetry: Arc<Telemetry>, readiness: Arc<Readiness>) -> Arc<Self> {
        Arc::new(Self { telemetry, readiness })
    }

    /// Serves until dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let admin = self.clone();
            tokio::spawn(async move {
                let answer = service_fn(|request| std::future::ready(Ok::<_, Infallible>(admin.answer(&request))));
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .keep_alive(false)
                    .header_read_timeout(HEADER_READ_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), answer);
                let _ = timeout(CONNECTION_TIMEOUT, connection).await; // what went wrong is the asker's business
                drop(place);
            });
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<String> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
            response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "live\n"),
            "/readyz" => match self.readiness.now() {
                Ok(()) => text(StatusCode::OK, "ready\n"),
                Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", why.name())),
            },
            "/metrics" => match self.telemetry.prometheus_text() {
                Ok(metrics) => text(StatusCode::OK, metrics),
                Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be gathered\n"),
            },
            _ => text(StatusCode::NOT_FOUND, "/livez /readyz /metrics\n"),
        }
    }
}

fn text(status: StatusCode, body: impl Into<String>) -> Response<String> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
