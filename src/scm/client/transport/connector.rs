//! Opens connections to SCM and to the services that issue credentials: TCP, TLS for https, through a proxy if one is
//! configured.

use std::{
    error::Error,
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{HeaderValue, Uri, uri::Scheme};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector, dns::Name};
use rustls::{
    AlertDescription, ClientConfig, ProtocolVersion, crypto::aws_lc_rs::default_provider, pki_types::CertificateDer,
};
use rustls_platform_verifier::Verifier;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};
use tower::{Service, ServiceExt as _};

use super::{BuildError, tunnel::Tunnel};
use crate::config;

/// The idle time before the first TCP keep-alive probe, and the interval of the three probes.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// The most concurrent name resolutions.
const MAX_LOOKUPS: usize = 64;

type Direct = HttpsConnector<HttpConnector<Resolver>>;

/// A proxy, and the connections through it.
#[derive(Clone)]
struct Proxy {
    uri: Uri,
    authorization: Option<HeaderValue>,
    tunnels: HttpsConnector<Tunnel<Direct>>,
}

/// Opens connections.
#[derive(Clone)]
pub(super) struct Connector {
    direct: Direct,
    proxy: Option<Proxy>,
    timeout: Duration,
}

impl Connector {
    /// Creates a connector, with a proxy if there is one. `timeout` limits the whole of a connect, TLS included.
    pub(super) fn new(
        roots: &[CertificateDer<'static>],
        proxy: Option<&config::Proxy>,
        timeout: Duration,
        resolver: &Resolver,
    ) -> Result<Self, BuildError> {
        let tls = tls(roots).map_err(|_| BuildError::TrustRoots)?;
        let direct = over_tls(&tls, tcp(timeout, resolver));
        let proxy = proxy.map(|proxy| {
            let uri = Uri::try_from(proxy.endpoint.to_string()).expect("an endpoint is a URI");
            let authorization = proxy.authorization.as_ref().map(authorization);
            let tunnel = Tunnel::new(direct.clone(), uri.clone(), authorization.clone());
            Proxy { uri, authorization, tunnels: over_tls(&tls, tunnel) }
        });
        Ok(Self { direct, proxy, timeout })
    }

    /// Returns a connector with the same trust roots that uses no proxy.
    pub(super) fn without_proxy(self) -> Self {
        Self { proxy: None, ..self }
    }

    /// Returns the `Proxy-Authorization` of plain-text requests, which the proxy reads. Those in a tunnel have none.
    pub(super) fn proxy_authorization(&self) -> Option<&HeaderValue> {
        self.proxy.as_ref()?.authorization.as_ref()
    }

    async fn connect(self, to: Uri) -> Result<Stream, Box<dyn Error + Send + Sync>> {
        Ok(match self.proxy {
            None => Stream { io: Box::new(self.direct.oneshot(to).await?), has_read: false, via_proxy: false },
            Some(proxy) if to.scheme() == Some(&Scheme::HTTPS) => {
                Stream { io: Box::new(proxy.tunnels.oneshot(to).await?), has_read: false, via_proxy: false }
            }
            Some(proxy) => {
                Stream { io: Box::new(self.direct.oneshot(proxy.uri).await?), has_read: false, via_proxy: true }
            }
        })
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Stream, Self::Error>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connected = timeout(self.timeout, self.clone().connect(to));
        Box::pin(async { connected.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))? })
    }
}

/// Creates the TCP connector.
fn tcp(timeout: Duration, resolver: &Resolver) -> HttpConnector<Resolver> {
    let mut tcp = HttpConnector::new_with_resolver(resolver.clone());
    tcp.enforce_http(false); // the TLS connector around it accepts https
    tcp.set_nodelay(true); // a request is one write
    tcp.set_connect_timeout(Some(timeout));
    tcp.set_keepalive(Some(KEEP_ALIVE));
    tcp.set_keepalive_interval(Some(KEEP_ALIVE));
    tcp.set_keepalive_retries(Some(3));
    tcp.set_tcp_user_timeout(Some(timeout)); // unacknowledged data fails the connection after this time
    tcp
}

/// Resolves names with the system's resolver.
///
/// A hanging resolver occupies a blocking thread for each lookup, even after its caller has gone. The limit leaves blocking
/// threads for the reload of files.
#[derive(Clone)]
pub(super) struct Resolver(Arc<Semaphore>);

/// A name could not be resolved.
#[derive(Debug, thiserror::Error)]
#[error("name not resolved")]
pub(super) struct NotResolved(#[source] pub(super) io::Error);

impl Default for Resolver {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_LOOKUPS)))
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = NotResolved;
    type Future = BoxFuture<'static, Result<Self::Response, NotResolved>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), NotResolved>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let lookups = self.0.clone();
        Box::pin(async move {
            let permit = lookups.acquire_owned().await.expect("the semaphore is never closed");
            let resolve = move || {
                let _permit = permit; // held until the system responds, even if the caller has gone
                let addresses = (name.as_str(), 0).to_socket_addrs()?;
                // Plain text may go to localhost, so a hosts file or DNS must not lead it elsewhere.
                let is_local = name.as_str().eq_ignore_ascii_case("localhost");
                Ok(addresses.filter(|address| !is_local || address.ip().is_loopback()).collect::<Vec<_>>().into_iter())
            };
            spawn_blocking(resolve).await.map_err(io::Error::from).flatten().map_err(NotResolved)
        })
    }
}

/// Adds TLS for https.
fn over_tls<C>(tls: &ClientConfig, connections: C) -> HttpsConnector<C> {
    HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http().enable_http1().wrap_connector(connections)
}

/// Creates the TLS configuration, which trusts the system's roots and these.
fn tls(roots: &[CertificateDer<'static>]) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(default_provider());
    let verifier = Verifier::new_with_extra_roots(roots.iter().cloned(), provider.clone())?;
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

/// Returns the value of `Proxy-Authorization`.
fn authorization(value: &SecretString) -> HeaderValue {
    let mut value = HeaderValue::from_str(value.expose_secret()).expect("Basic and base64 are printable");
    value.set_sensitive(true);
    value
}

trait Io: Read + Write + Connection + Send {
    /// Returns whether the server may not have finished the handshake that the client has finished.
    ///
    /// Only TLS 1.3 has this state. A server sends tickets after its handshake.
    fn server_may_be_in_handshake(&self) -> bool;
}

impl<T: Read + Write + Connection + Send + Unpin> Io for MaybeHttpsStream<T> {
    fn server_may_be_in_handshake(&self) -> bool {
        let Self::Https(stream) = self else { return false };
        let (_, tls) = stream.inner().get_ref();
        tls.protocol_version() == Some(ProtocolVersion::TLSv1_3) && tls.tls13_tickets_received() == 0
    }
}

/// The alerts with which a server rejects a client (RFC 8446 6.2), for example one without a certificate.
pub(super) const REJECTIONS: [AlertDescription; 9] = [
    AlertDescription::AccessDenied,
    AlertDescription::BadCertificate,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateRequired,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateUnknown,
    AlertDescription::HandshakeFailure,
    AlertDescription::UnknownCA,
    AlertDescription::UnsupportedCertificate,
];

/// The server rejected the client's certificate, or its absence. With TLS 1.3 the alert arrives after the client has
/// finished the handshake and perhaps written a request, which the server has not read.
#[derive(Debug, thiserror::Error)]
#[error("rejected by the server")]
pub(super) struct RejectedByServer;

/// Returns whether a read failed because the server rejected the handshake. The alert `handshake_failure` is no such
/// answer, because the client would still be in the handshake.
fn is_rejection(error: &io::Error) -> bool {
    let tls = error.get_ref().and_then(|error| error.downcast_ref());
    matches!(tls, Some(rustls::Error::AlertReceived(alert))
        if REJECTIONS.contains(alert) && *alert != AlertDescription::HandshakeFailure)
}

/// A connection.
pub(super) struct Stream {
    io: Box<dyn Io + Unpin>,
    /// Whether the peer has sent anything, and so may have read requests.
    has_read: bool,
    /// Whether the proxy reads the requests, which then need the absolute form.
    via_proxy: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.via_proxy)
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.io).poll_read(cx, buf)) {
            Err(error) if !self.has_read && self.io.server_may_be_in_handshake() && is_rejection(&error) => {
                Poll::Ready(Err(io::Error::other(RejectedByServer)))
            }
            read => {
                self.has_read = true;
                Poll::Ready(read)
            }
        }
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;
    use tokio::sync::Semaphore;
    use tower::Service as _;

    use super::Resolver;

    #[tokio::test]
    async fn a_name_is_resolved_when_a_permit_is_free() {
        let permits = Arc::new(Semaphore::new(1));
        let taken = permits.clone().try_acquire_owned().unwrap();
        let mut lookup = Resolver(permits).call("127.0.0.1".parse().unwrap());
        assert!((&mut lookup).now_or_never().is_none());
        drop(taken);
        assert_eq!(lookup.await.unwrap().next(), Some(([127, 0, 0, 1], 0).into()));
    }
}
