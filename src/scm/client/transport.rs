//! HTTP/1.1 over TLS with hyper's client.
//!
//! The client follows no redirect, because a redirect would carry signed headers to another host. It resends nothing that
//! was sent, because each attempt needs a date and signature of its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Uri,
    header::{ACCEPT, CONTENT_LENGTH, PROXY_AUTHORIZATION, USER_AGENT},
    uri::Scheme,
};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper_util::{
    client::legacy::{
        self,
        connect::{CaptureConnection, capture_connection},
    },
    rt::{TokioExecutor, TokioTimer},
};
use rustls::pki_types::CertificateDer;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use crate::{
    clock,
    config::{self, Endpoint},
    runtime::PerWorker,
    scm::{api::RawReply, sign::signed_request::SignedRequest},
};

mod connector;
mod exchange;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod send_error;
mod tunnel;

use connector::{Connector, Resolver};
pub(in crate::scm) use exchange::{ExchangeReply, ExchangeRequest};
pub(in crate::scm) use send_error::{SendError, SendErrorKind};
use send_error::{classify, classify_body};

const AGENT: HeaderValue = HeaderValue::from_static(concat!("scm-gateway/", env!("CARGO_PKG_VERSION")));
const ANYTHING: HeaderValue = HeaderValue::from_static("*/*");

/// The largest response body of SCM.
const MAX_BODY: usize = 1024 * 1024;

/// How long the body of an error response is waited for. The status alone gives a reason; the body may give a more exact
/// one.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// Kept back from the deadline while an error body is waited for, so that the head is not lost with the body.
const HEAD_MARGIN: Duration = Duration::from_millis(5);

/// An idle connection is closed after this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The idle connections of all workers together.
const MAX_IDLE: usize = 512;

/// The client cannot be built as configured.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// `[upstream] ca_file` or the system's trust roots cannot be used.
    #[error(
        "upstream.ca_file: no trust roots: install the system's CA certificates, unset SSL_CERT_FILE and SSL_CERT_DIR, or name a \
             file of your own"
    )]
    TrustRoots,
}

type Client<C> = legacy::Client<C, Full<Bytes>>;

/// The connections that were opened with the same trust roots and have not been discarded.
struct Pool {
    connector: Connector,
    /// A client for each worker, because the worker that opened a connection drives it.
    clients: PerWorker<WorkerClient>,
}

struct WorkerClient {
    client: Client<Connector>,
    /// Counts the responses.
    responses: AtomicUsize,
}

impl Pool {
    fn new(connector: Connector, workers: usize) -> Arc<Self> {
        let max_idle = MAX_IDLE.div_ceil(workers);
        let client = || {
            let client = legacy::Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_TIMEOUT)
                .pool_max_idle_per_host(max_idle)
                // A resend inside hyper-util would open a connection while `WriteStarted` still shows the previous one.
                .retry_canceled_requests(false)
                // A client replaces a folded line by spaces (RFC 9112, 5.2). Rejecting it would lose a call that was carried out.
                .http1_allow_obsolete_multiline_headers_in_responses(true)
                .build(connector.clone());
            WorkerClient { client, responses: AtomicUsize::new(0) }
        };
        let clients = PerWorker::new(workers, client);
        Arc::new(Self { connector, clients })
    }
}

/// Whether hyper has assigned a connection to a request. hyper then writes the request at once, or fails it as unsent.
#[derive(Clone)]
pub(super) struct WriteStarted(CaptureConnection);

impl WriteStarted {
    /// Returns whether any byte of the request may have been written.
    pub(super) fn get(&self) -> bool {
        self.0.connection_metadata().is_some()
    }

    /// Returns the error of a request whose deadline is exceeded.
    pub(super) fn timeout_error(&self) -> SendError {
        let sent = self.get();
        let cause = if sent { "no response in time" } else { "no connection in time" };
        SendError { kind: SendErrorKind::Timeout { sent }, cause }
    }
}

/// A request that is ready to be sent, and the pool that it uses.
pub(super) struct OutgoingRequest {
    request: Request<Full<Bytes>>,
    pool: Arc<Pool>,
}

/// The connections that a request may use, and how many responses they had brought before it.
pub(super) struct PoolUse {
    pool: Arc<Pool>,
    responses: usize,
}

/// The connections to SCM.
pub struct Transport {
    config: config::Upstream,
    workers: usize,
    resolver: Resolver,
    pool: watch::Sender<Arc<Pool>>,
    /// The credentials for a proxy that reads plain-text requests.
    proxy_authorization: Option<HeaderValue>,
}

impl Transport {
    /// Creates a client for `workers` worker threads.
    pub fn new(config: &config::Upstream, workers: usize) -> Result<Self, BuildError> {
        let roots = config.ca.as_ref().map_or(&[][..], |ca| &ca.certificates);
        let resolver = Resolver::default();
        let connector = connector(config, roots, &resolver)?;
        let proxy_authorization = connector.proxy_authorization().cloned();
        let pool = watch::Sender::new(Pool::new(connector, workers));
        Ok(Self { config: config.clone(), workers, resolver, pool, proxy_authorization })
    }

    /// Replaces the trust roots that are used in addition to the system's. Requests in flight keep their connections.
    pub fn set_trust_roots(&self, roots: &[CertificateDer<'static>]) -> Result<(), BuildError> {
        let connector = connector(&self.config, roots, &self.resolver)?;
        self.pool.send_replace(Pool::new(connector, self.workers));
        Ok(())
    }

    /// Discards the idle connections of a pool. Requests in flight keep theirs.
    ///
    /// The event that ended one connection, such as a restarted load balancer, has probably ended all idle ones. Poisoning
    /// the lost connection alone would let each of the others fail a request.
    fn discard(&self, pool: &Arc<Pool>) {
        self.pool.send_if_modified(|current| {
            let is_current = Arc::ptr_eq(current, pool);
            if is_current {
                *current = Pool::new(pool.connector.clone(), self.workers);
            }
            is_current
        });
    }

    /// Builds the HTTP request, the signal for the start of its write, and what is known of its pool.
    pub(super) fn prepare(
        &self,
        endpoint: &Endpoint,
        signed: SignedRequest,
    ) -> Result<(OutgoingRequest, WriteStarted, PoolUse), SendError> {
        let url = endpoint.uri(signed.path_and_query).map_err(invalid_url)?;
        let mut request = request(signed.method, url, signed.headers, signed.body);
        if let Some(authorization) = &self.proxy_authorization
            && request.uri().scheme() == Some(&Scheme::HTTP)
        {
            request.headers_mut().insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        let write_started = WriteStarted(capture_connection(&mut request));
        let pool = self.pool.borrow().clone();
        let responses = pool.clients.local().responses.load(Relaxed);
        let pool_use = PoolUse { pool: pool.clone(), responses };
        Ok((OutgoingRequest { request, pool }, write_started, pool_use))
    }

    /// Discards the idle connections of a request that hangs, if nothing else was responded meanwhile: they are probably as
    /// dead as its own.
    pub(super) fn discard_if_silent(&self, pool_use: &PoolUse) {
        if pool_use.pool.clients.local().responses.load(Relaxed) == pool_use.responses {
            self.discard(&pool_use.pool);
        }
    }

    /// Sends a request and reads the whole response. The body of an error is waited for until the deadline at most.
    pub(super) async fn send(&self, outgoing: OutgoingRequest, deadline: Instant) -> Result<RawReply, SendError> {
        let OutgoingRequest { request, pool } = outgoing;
        let worker = pool.clients.local();
        let response = worker.client.request(request).await.map_err(|error| classify(&error));
        match &response {
            Ok(_) => drop(worker.responses.fetch_add(1, Relaxed)),
            Err(SendError { kind: SendErrorKind::ConnectionLost(_), .. }) => self.discard(&pool),
            Err(_) => {}
        }
        let (head, body) = response?.into_parts();
        let status = head.status.as_u16();
        let headers = head.headers;
        let is_error = status >= 400;
        let body = read(body, MAX_BODY);
        // The status of an error is sufficient: a slow body is not waited for, and a broken body changes nothing.
        let body = if is_error {
            let until = (clock::monotonic() + ERROR_BODY_TIMEOUT).min(deadline - HEAD_MARGIN);
            timeout_at(until, body).await.unwrap_or(Ok(Some(Bytes::new())))
        } else {
            body.await
        };
        match body {
            Ok(Some(body)) => Ok(RawReply { status, headers, body }),
            Ok(None) => Err(SendError {
                kind: SendErrorKind::TooLarge(Box::new((status, headers))),
                cause: "response larger than 1 MiB",
            }),
            Err(_) if is_error => Ok(RawReply { status, headers, body: Bytes::new() }),
            Err(SendError { kind: SendErrorKind::ConnectionLost(_), cause }) => {
                Err(SendError { kind: SendErrorKind::ConnectionLost(Some(Box::new((status, headers)))), cause })
            }
            Err(error) => Err(error),
        }
    }
}

fn connector(
    config: &config::Upstream,
    roots: &[CertificateDer<'static>],
    resolver: &Resolver,
) -> Result<Connector, BuildError> {
    Connector::new(roots, config.proxy.as_ref(), config.connect_timeout, resolver)
}

fn request(method: Method, url: Uri, headers: HeaderMap, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    let length = request.body().size_hint().lower();
    let has_length = method != Method::GET; // RFC 9110 8.6
    *request.method_mut() = method;
    *request.uri_mut() = url;
    *request.headers_mut() = headers;
    let headers = request.headers_mut();
    if has_length {
        headers.insert(CONTENT_LENGTH, length.into()); // hyper leaves out a length of 0
    }
    headers.insert(ACCEPT, ANYTHING);
    headers.insert(USER_AGENT, AGENT);
    request
}

fn invalid_url(_: http::Error) -> SendError {
    SendError { kind: SendErrorKind::Url, cause: "invalid URL" }
}

/// Reads a whole body. Returns `None` if the body is larger than `max`.
async fn read(body: Incoming, max: usize) -> Result<Option<Bytes>, SendError> {
    match Limited::new(body, max).collect().await {
        Ok(body) => Ok(Some(body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Ok(None),
        Err(error) => Err(classify_body(&*error)),
    }
}
