//! HTTP/1.1 over TLS by hyper's own client. It follows no redirect, which would carry signed headers to another host,
//! and repeats nothing that was sent: an attempt needs a date and signature of its own.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{self, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Uri,
    header::{ACCEPT, CONTENT_LENGTH, PROXY_AUTHORIZATION, USER_AGENT},
    uri::{InvalidUri, Scheme},
};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::pki_types::CertificateDer;
use secrecy::ExposeSecret as _;
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};
use zeroize::Zeroizing;

use super::signed::SignedRequest;
use crate::{clock, config, rest::RawReply, workers::PerWorker};

mod broken;
mod connector;

pub(crate) use broken::{Broken, SendError};
use broken::{classify, classify_body};
use connector::{Connector, Resolver};

const AGENT: HeaderValue = HeaderValue::from_static(concat!("scm-gateway/", env!("CARGO_PKG_VERSION")));
const ANYTHING: HeaderValue = HeaderValue::from_static("*/*");

/// Answers are read up to here.
const MAX_BODY: usize = 1024 * 1024;

/// Those of the metadata service, up to here.
const MAX_METADATA: usize = 64 * 1024;

/// A request to the metadata service may take so long.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the body of an error is waited for: the head decides, the body refines.
const REFUSAL_BODY: Duration = Duration::from_secs(1);

/// What is kept back of the deadline while it is waited for: a head that came is not lost for its body.
const TO_JUDGE: Duration = Duration::from_millis(5);

/// A connection without work is closed after this time.
const IDLE: Duration = Duration::from_secs(60);

/// Connections without work that are kept, by all workers together.
const MAX_IDLE: usize = 512;

/// The client cannot be built as configured.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// `[upstream] ca_file` or the system's trust roots cannot be used.
    #[error("upstream.ca_file: no trust roots: install the system's CA certificates or name a file of your own")]
    TrustRoots,
    /// `[upstream] proxy` is no proxy.
    #[error("upstream.proxy: expects a URL such as \"http://proxy.example:3128\"")]
    Proxy,
}

/// A client over connections of this kind.
type Client<C> = legacy::Client<C, Outgoing>;

/// Connections that were made under the same circumstances.
struct Pool {
    connector: Connector,
    /// A client for each worker, for a connection is driven by the worker that made it.
    clients: PerWorker<Client<Connector>>,
}

/// Whether hyper has begun to write a request: not before there is a connection for it.
#[derive(Clone, Default)]
pub(super) struct Begun(Arc<AtomicBool>);

impl Begun {
    pub(super) fn get(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// What it means that the time is over now.
    pub(super) fn late(&self) -> SendError {
        let begun = self.get();
        let cause = if begun { "no response in time" } else { "no connection in time" };
        SendError { kind: Broken::Late { begun }, cause }
    }
}

/// The body of a request. hyper asks whether it has an end as it writes the head.
struct Outgoing {
    body: Full<Bytes>,
    begun: Begun,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.begun.0.store(true, Relaxed);
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The connections to SCM.
pub struct Transport {
    config: config::Upstream,
    workers: usize,
    resolver: Resolver,
    pool: watch::Sender<Arc<Pool>>,
    /// What the proxy wants to know of those who send plain requests.
    proxy_authorization: Option<HeaderValue>,
}

impl Transport {
    /// A client as `config` says, for so many workers.
    pub fn new(config: &config::Upstream, workers: usize) -> Result<Self, BuildError> {
        let roots = config.ca.as_ref().map_or(&[][..], |ca| &ca.certificates);
        let resolver = Resolver::default();
        let connector = connector(config, roots, &resolver)?;
        let proxy_authorization = connector.proxy_authorization().cloned();
        let pool = watch::Sender::new(Pool::new(connector, workers));
        Ok(Self { config: config.clone(), workers, resolver, pool, proxy_authorization })
    }

    /// Trusts these roots beside the usual ones from now on. Requests on their way end as they began.
    pub fn trust(&self, roots: &[CertificateDer<'static>]) -> Result<(), BuildError> {
        self.pool.send_replace(Pool::new(connector(&self.config, roots, &self.resolver)?, self.workers));
        Ok(())
    }

    /// Uses none of these connections any more. What ended one of them, such as a balancer that was restarted, has
    /// likely ended all that wait for work, and a repeat should not find the next dead one.
    fn give_up(&self, pool: &Arc<Pool>) {
        self.pool.send_if_modified(|current| {
            let is_current = Arc::ptr_eq(current, pool);
            if is_current {
                *current = Pool::new(pool.connector.clone(), self.workers);
            }
            is_current
        });
    }

    /// Sends a request and reads the answer whole, before the `deadline` if that can be.
    pub(super) async fn send(
        &self,
        signed: SignedRequest,
        begun: Begun,
        deadline: Instant,
    ) -> Result<RawReply, SendError> {
        let body = Outgoing { body: signed.body.into(), begun };
        let mut request = request(signed.method, signed.url, signed.headers, body).map_err(no_url)?;
        if let Some(authorization) = &self.proxy_authorization
            && request.uri().scheme() == Some(&Scheme::HTTP)
        {
            request.headers_mut().insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        let pool = self.pool.borrow().clone();
        let sent = pool.clients.mine().request(request).await.map_err(|error| classify(&error));
        if let Err(SendError { kind: Broken::Lost(_), .. }) = sent {
            self.give_up(&pool);
        }
        let (head, body) = sent?.into_parts();
        let (status, headers) = (head.status.as_u16(), head.headers);
        let refused = status >= 400;
        let body = read(body, MAX_BODY);
        // A refusal says enough in its head: it is not waited for, and a body that breaks off changes nothing.
        let body = if refused {
            let patience = (clock::steady() + REFUSAL_BODY).min(deadline - TO_JUDGE);
            timeout_at(patience, body).await.unwrap_or(Ok(Some(Bytes::new())))
        } else {
            body.await
        };
        match body {
            Ok(Some(body)) => Ok(RawReply { status, headers, body }),
            Ok(None) => Err(SendError { kind: Broken::TooLarge(status, headers), cause: "response larger than 1 MiB" }),
            Err(_) if refused => Ok(RawReply { status, headers, body: Bytes::new() }),
            Err(SendError { kind: Broken::Lost(_), cause }) => {
                Err(SendError { kind: Broken::Lost(Some((status, headers))), cause })
            }
            Err(error) => Err(error),
        }
    }
}

/// The way to the metadata service: plain HTTP, no proxy, a connection a request.
pub(crate) struct MetadataTransport(Client<HttpConnector>);

impl MetadataTransport {
    pub(crate) fn new() -> Self {
        Self(legacy::Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http())
    }

    /// Sends a request without a body; status and body of the answer, which holds secrets.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: String,
        headers: HeaderMap,
    ) -> Result<(u16, Zeroizing<Vec<u8>>), SendError> {
        let begun = Begun::default();
        let body = Outgoing { body: Full::default(), begun: begun.clone() };
        let sent = self.0.request(request(method, url, headers, body).map_err(no_url)?);
        let answered = async {
            let response = sent.await.map_err(|error| classify(&error))?;
            let status = response.status().as_u16();
            match read(response.into_body(), MAX_METADATA).await? {
                Some(body) => Ok((status, Zeroizing::new(body.into()))),
                None => Err(SendError {
                    kind: Broken::TooLarge(status, HeaderMap::new()),
                    cause: "response larger than 64 KiB",
                }),
            }
        };
        match timeout(METADATA_TIMEOUT, answered).await {
            Ok(answer) => answer,
            Err(_) => Err(begun.late()),
        }
    }
}

fn connector(
    config: &config::Upstream,
    roots: &[CertificateDer<'static>],
    resolver: &Resolver,
) -> Result<Connector, BuildError> {
    let proxy = config.proxy.as_ref().map(|proxy| proxy.expose_secret());
    Connector::new(roots, proxy, config.connect_timeout, resolver)
}

impl Pool {
    fn new(connector: Connector, workers: usize) -> Arc<Self> {
        let clients = PerWorker::new(workers, || {
            legacy::Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(MAX_IDLE.div_ceil(workers))
                .build(connector.clone())
        });
        Arc::new(Self { connector, clients })
    }
}

fn request(method: Method, url: String, headers: HeaderMap, body: Outgoing) -> Result<Request<Outgoing>, InvalidUri> {
    let url = Uri::try_from(url)?;
    let length = body.size_hint().lower();
    let mut request = Request::new(body);
    (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, url, headers);
    let headers = request.headers_mut();
    headers.insert(CONTENT_LENGTH, length.into()); // hyper leaves it out where it is 0
    headers.insert(ACCEPT, ANYTHING);
    headers.insert(USER_AGENT, AGENT);
    Ok(request)
}

fn no_url(_: InvalidUri) -> SendError {
    SendError { kind: Broken::Connect, cause: "invalid URL" }
}

/// The whole body; `None` if it is larger than `most`.
async fn read(body: Incoming, most: usize) -> Result<Option<Bytes>, SendError> {
    match Limited::new(body, most).collect().await {
        Ok(body) => Ok(Some(body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Ok(None),
        Err(error) => Err(classify_body(&*error)),
    }
}
