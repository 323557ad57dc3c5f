//! HTTP/1.1 over TLS by reqwest: everything it would do of its own accord is off.

use std::{error::Error as StdError, io, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, header::CONTENT_LENGTH};
use reqwest::{Client, ClientBuilder, Response, redirect, retry, tls};
use rustls::pki_types::CertificateDer;
use secrecy::ExposeSecret as _;
use tokio::{sync::watch, time::timeout};
use zeroize::Zeroizing;

use super::signed::SignedRequest;
use crate::{config, rest::RawReply};

/// Answers are read up to here.
const MAX_BODY: usize = 1024 * 1024;

/// Those of the metadata service, up to here.
const MAX_METADATA: usize = 64 * 1024;

/// A request to the metadata service may take so long.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the body of an error is waited for: the head decides, the body refines.
const REFUSAL_BODY: Duration = Duration::from_secs(1);

/// A connection without work is closed after this time.
const IDLE: Duration = Duration::from_secs(60);

/// "Too many open files", of the process or the system, errno(3).
const OUT_OF_DESCRIPTORS: [i32; 2] = [24, 23];

/// Connections without work that are kept.
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

/// Why no whole answer came, and what broke, in a word of ours.
#[derive(Debug)]
pub(crate) struct SendError {
    pub(crate) kind: Broken,
    pub(crate) cause: &'static str,
}

/// What no whole answer says about the request.
#[derive(Debug)]
pub(crate) enum Broken {
    /// No connection: not one byte of the request left.
    Connect,
    /// No file descriptor for one: it is the gateway that is full.
    Descriptors,
    /// No trustworthy connection: not one byte of the request left.
    Tls,
    /// The connection broke with the request on it, perhaps after the head of the answer.
    Lost(Option<(u16, HeaderMap)>),
    /// What came is not HTTP.
    Malformed,
    /// The body is larger than it may be.
    TooLarge(u16, HeaderMap),
}

/// The connections to SCM.
pub struct Transport {
    config: config::Upstream,
    client: watch::Sender<Client>,
}

impl Transport {
    /// A client as `config` says.
    pub fn new(config: &config::Upstream) -> Result<Self, BuildError> {
        let roots = config.ca.as_ref().map_or(&[][..], |ca| &ca.certificates);
        Ok(Self { client: watch::Sender::new(client(config, roots)?), config: config.clone() })
    }

    /// Trusts these roots beside the usual ones from now on. Requests on their way end as they began.
    pub fn trust(&self, roots: &[CertificateDer<'static>]) -> Result<(), BuildError> {
        self.client.send_replace(client(&self.config, roots)?);
        Ok(())
    }

    /// Sends a request and reads the answer whole.
    pub(super) async fn send(&self, request: SignedRequest) -> Result<RawReply, SendError> {
        let mut headers = request.headers;
        headers.insert(CONTENT_LENGTH, request.body.len().into()); // hyper leaves it out where it is 0
        let client = self.client.borrow().clone();
        let sent = client.request(request.method, request.url).headers(headers).body(request.body).send();
        let mut response = sent.await.map_err(|error| classify(&error))?;
        let (status, headers) = (response.status().as_u16(), std::mem::take(response.headers_mut()));
        let refused = status >= 400;
        let body = read(&mut response, MAX_BODY);
        // A refusal says enough in its head: it is not waited for, and a body that breaks off changes nothing.
        let body =
            if refused { timeout(REFUSAL_BODY, body).await.unwrap_or(Ok(Some(BytesMut::new()))) } else { body.await };
        match body {
            Ok(Some(body)) => Ok(RawReply { status, headers, body: body.freeze() }),
            Ok(None) => Err(SendError { kind: Broken::TooLarge(status, headers), cause: "more than 1 MiB" }),
            Err(_) if refused => Ok(RawReply { status, headers, body: Bytes::new() }),
            Err(SendError { kind: Broken::Lost(_), cause }) => {
                Err(SendError { kind: Broken::Lost(Some((status, headers))), cause })
            }
            Err(error) => Err(error),
        }
    }
}

/// The way to the metadata service: plain HTTP, no proxy, a connection a request.
pub(crate) struct MetadataTransport(Client);

impl MetadataTransport {
    pub(crate) fn new() -> Result<Self, BuildError> {
        let builder = builder().timeout(METADATA_TIMEOUT).pool_max_idle_per_host(0).tls_certs_only([]);
        builder.build().map(Self).map_err(|_| BuildError::TrustRoots)
    }

    /// Sends a request without a body; status and body of the answer, which holds secrets.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: String,
        mut headers: HeaderMap,
    ) -> Result<(u16, Zeroizing<Vec<u8>>), SendError> {
        headers.insert(CONTENT_LENGTH, 0.into());
        let sent = self.0.request(method, url).headers(headers).send();
        let mut response = sent.await.map_err(|error| classify(&error))?;
        let status = response.status().as_u16();
        match read(&mut response, MAX_METADATA).await? {
            Some(body) => Ok((status, Zeroizing::new(body.into()))),
            None => Err(SendError { kind: Broken::TooLarge(status, HeaderMap::new()), cause: "more than 64 KiB" }),
        }
    }
}

fn client(config: &config::Upstream, roots: &[CertificateDer<'static>]) -> Result<Client, BuildError> {
    let mut builder = builder()
        .tls_version_min(tls::Version::TLS_1_2)
        .connect_timeout(config.connect_timeout) // includes TLS
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MAX_IDLE);
    if let Some(proxy) = &config.proxy {
        builder = builder.proxy(reqwest::Proxy::all(proxy.expose_secret()).map_err(|_| BuildError::Proxy)?);
    }
    for root in roots {
        let root = reqwest::Certificate::from_der(root).map_err(|_| BuildError::TrustRoots)?;
        builder = builder.tls_certs_merge([root]);
    }
    builder.build().map_err(|_| BuildError::TrustRoots)
}

/// A client with every choice of its own switched off.
fn builder() -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("scm-gateway/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none()) // a redirect would carry signed headers to another host
        .referer(false)
        .retry(retry::never()) // a repeated attempt needs a date and signature of its own
        .http1_only() // also where another crate switches HTTP/2 on
        .no_proxy() // none of the environment
}

/// The whole body; `None` if it is larger than `most`.
async fn read(response: &mut Response, most: usize) -> Result<Option<BytesMut>, SendError> {
    let mut body = BytesMut::with_capacity(4096);
    while let Some(chunk) = response.chunk().await.map_err(|error| classify(&error))? {
        if body.len() + chunk.len() > most {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// Sorts an error by what it says about the request. The error itself goes no further: it prints the URL.
fn classify(error: &reqwest::Error) -> SendError {
    let causes = causes(error);
    let of = |kind, cause| SendError { kind, cause };
    let hyper = causes.iter().find_map(|cause| cause.downcast_ref::<hyper::Error>());
    if error.is_connect() || error.is_builder() {
        return match causes.iter().find_map(|cause| cause.downcast_ref::<rustls::Error>()) {
            Some(tls) => of(Broken::Tls, tls_cause(tls)),
            None if causes.iter().any(|cause| is_out_of_descriptors(*cause)) => {
                of(Broken::Descriptors, "out of file descriptors")
            }
            None if error.is_timeout() => of(Broken::Connect, "no connection within connect_timeout"),
            None => of(Broken::Connect, io_cause(&causes).unwrap_or("no connection")),
        };
    }
    match hyper {
        Some(hyper) if hyper.is_canceled() || hyper.is_closed() => of(Broken::Connect, "closed before it was used"),
        Some(hyper) if hyper.is_parse() || causes.iter().any(|cause| is_bad_chunk(*cause)) => {
            of(Broken::Malformed, "no HTTP")
        }
        _ => of(Broken::Lost(None), io_cause(&causes).unwrap_or("connection closed")),
    }
}

fn tls_cause(error: &rustls::Error) -> &'static str {
    use rustls::{CertificateError as Certificate, Error};
    match error {
        Error::InvalidCertificate(Certificate::UnknownIssuer) => "certificate of an unknown issuer",
        Error::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => "certificate expired",
        Error::InvalidCertificate(Certificate::NotValidForName | Certificate::NotValidForNameContext { .. }) => {
            "certificate for another name"
        }
        Error::InvalidCertificate(_) => "certificate not valid",
        Error::InvalidMessage(_) => "no TLS on the other side",
        _ => "no agreement on TLS",
    }
}

fn io_cause(causes: &[&(dyn StdError + 'static)]) -> Option<&'static str> {
    // hyper-util's own error for this has no name.
    if causes.iter().any(|cause| cause.to_string() == "dns error") {
        return Some("name not resolved");
    }
    let io = causes.iter().find_map(|cause| cause.downcast_ref::<io::Error>())?;
    Some(match io.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused",
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "connection reset",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "address unreachable",
        io::ErrorKind::UnexpectedEof => "connection closed",
        io::ErrorKind::TimedOut => "connection timed out",
        _ => "connection broke",
    })
}

fn is_out_of_descriptors(cause: &(dyn StdError + 'static)) -> bool {
    let code = cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    code.is_some_and(|code| OUT_OF_DESCRIPTORS.contains(&code))
}

/// Whether hyper could not make sense of a chunked body, which it does not count as parsing.
fn is_bad_chunk(cause: &(dyn StdError + 'static)) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput};
    let Some(io) = cause.downcast_ref::<io::Error>() else { return false };
    let of_tls = io.get_ref().is_some_and(|payload| payload.is::<rustls::Error>());
    !of_tls && io.raw_os_error().is_none() && matches!(io.kind(), InvalidData | InvalidInput)
}

/// The error and everything below it. `io::Error::source` passes over its own payload, where TLS errors are.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> Vec<&'a (dyn StdError + 'static)> {
    let mut causes = vec![error];
    let mut current = error;
    while causes.len() < 32 {
        let payload = current.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        match payload.map(|payload| payload as &(dyn StdError + 'static)).or_else(|| current.source()) {
            Some(next) => current = next,
            None => break,
        }
        causes.push(current);
    }
    causes
}
