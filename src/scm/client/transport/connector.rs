//! How connections to SCM are made: TCP, TLS where the scheme says so, perhaps by way of a proxy.

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
use http::{HeaderMap, HeaderValue, Uri, header::USER_AGENT, uri::Scheme};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::{
    legacy::connect::{Connected, Connection, HttpConnector, dns::Name, proxy::Tunnel},
    proxy::matcher::{Intercept, Matcher},
};
use rustls::{AlertDescription, ClientConfig, crypto::aws_lc_rs::default_provider, pki_types::CertificateDer};
use rustls_platform_verifier::Verifier;
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};
use tower::{Service, ServiceExt as _};

use super::{AGENT, BuildError};

/// A peer that is not there any more is noticed after this time of silence and three times as long.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Names that are looked up at a time.
const LOOKUPS: usize = 64;

type Direct = HttpsConnector<HttpConnector<Resolver>>;

/// Makes connections.
#[derive(Clone)]
pub(super) struct Connector {
    direct: Direct,
    proxy: Option<(Intercept, HttpsConnector<Tunnel<Direct>>)>,
    timeout: Duration,
}

impl Connector {
    /// By this proxy, if there is one. A connection, TLS and all, takes no longer than `timeout`.
    pub(super) fn new(
        roots: &[CertificateDer<'static>],
        proxy: Option<&str>,
        timeout: Duration,
        resolver: &Resolver,
    ) -> Result<Self, BuildError> {
        let tls = tls(roots).map_err(|_| BuildError::TrustRoots)?;
        let direct = over_tls(&tls, tcp(timeout, resolver));
        let proxy = proxy.map(|url| intercept(url).ok_or(BuildError::Proxy)).transpose()?.map(|proxy| {
            let agent = HeaderMap::from_iter([(USER_AGENT, AGENT)]);
            let mut tunnel = Tunnel::new(proxy.uri().clone(), direct.clone()).with_headers(agent);
            if let Some(authorization) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(authorization.clone());
            }
            (proxy, over_tls(&tls, tunnel))
        });
        Ok(Self { direct, proxy, timeout })
    }

    /// What plain requests tell the proxy of who sends them: nobody but the proxy reads those of a tunnel.
    pub(super) fn proxy_authorization(&self) -> Option<&HeaderValue> {
        self.proxy.as_ref().and_then(|(proxy, _)| proxy.basic_auth())
    }

    async fn connect(self, to: Uri) -> Result<Stream, Box<dyn Error + Send + Sync>> {
        Ok(match self.proxy {
            None => Stream { io: Box::new(self.direct.oneshot(to).await?), answered: false, of_proxy: false },
            Some((_, tunnel)) if to.scheme() == Some(&Scheme::HTTPS) => {
                Stream { io: Box::new(tunnel.oneshot(to).await?), answered: false, of_proxy: false }
            }
            Some((proxy, _)) => Stream {
                io: Box::new(self.direct.oneshot(proxy.uri().clone()).await?),
                answered: false,
                of_proxy: true,
            },
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

/// Connections of the system.
fn tcp(timeout: Duration, resolver: &Resolver) -> HttpConnector<Resolver> {
    let mut tcp = HttpConnector::new_with_resolver(resolver.clone());
    tcp.enforce_http(false); // TLS is somebody else's
    tcp.set_nodelay(true); // a request is one write
    tcp.set_connect_timeout(Some(timeout));
    tcp.set_keepalive(Some(KEEP_ALIVE));
    tcp.set_keepalive_interval(Some(KEEP_ALIVE));
    tcp.set_keepalive_retries(Some(3));
    tcp.set_tcp_user_timeout(Some(timeout)); // nor is what was sent acknowledged any later than that
    tcp
}

/// Looks names up as the system does. A resolver that is dead keeps a thread for each, long after nobody waits any more:
/// they must not be all threads that there are for waiting, for files are read on them too.
#[derive(Clone)]
pub(super) struct Resolver(Arc<Semaphore>);

/// A name that the system does not know, or not now.
#[derive(Debug, thiserror::Error)]
#[error("name not resolved")]
pub(super) struct NotResolved(#[source] pub(super) io::Error);

impl Default for Resolver {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LOOKUPS)))
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
        let threads = self.0.clone();
        Box::pin(async move {
            let thread = threads.acquire_owned().await.expect("it is never closed");
            let look_up = move || {
                let _thread = thread; // until the system has answered, whoever has gone meanwhile
                (name.as_str(), 0).to_socket_addrs()
            };
            spawn_blocking(look_up).await.map_err(io::Error::from).flatten().map_err(NotResolved)
        })
    }
}

/// TLS on connections, where the scheme says so.
fn over_tls<C>(tls: &ClientConfig, connections: C) -> HttpsConnector<C> {
    HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http().enable_http1().wrap_connector(connections)
}

/// Trusts the system's roots and these.
fn tls(roots: &[CertificateDer<'static>]) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(default_provider());
    let verifier = Verifier::new_with_extra_roots(roots.iter().cloned(), provider.clone())?;
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

/// The proxy as its URL says.
fn intercept(url: &str) -> Option<Intercept> {
    Matcher::builder().all(url).build().intercept(&Uri::from_static("https://scm"))
}

trait Io: Read + Write + Connection + Send {}

impl<T: Read + Write + Connection + Send> Io for T {}

/// Why a server does not go on with a client (RFC 8446 6.2), such as one that shows no certificate.
pub(super) const REFUSALS: [AlertDescription; 9] = [
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

/// The server did not want the connection. With TLS 1.3 it says so when the handshake is over for us, and a request is
/// perhaps on its way to nobody.
#[derive(Debug, thiserror::Error)]
#[error("refused by the server")]
pub(super) struct RefusedByServer;

fn is_refusal(error: &io::Error) -> bool {
    let tls = error.get_ref().and_then(|error| error.downcast_ref());
    matches!(tls, Some(rustls::Error::AlertReceived(alert)) if REFUSALS.contains(alert))
}

/// A connection.
pub(super) struct Stream {
    io: Box<dyn Io + Unpin>,
    /// Whether the other side has said anything: then it has read requests.
    answered: bool,
    /// Whether the proxy reads the requests, which then name the whole URL.
    of_proxy: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.of_proxy)
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.io).poll_read(cx, buf)) {
            Err(error) if !self.answered && is_refusal(&error) => Poll::Ready(Err(io::Error::other(RefusedByServer))),
            read => {
                self.answered = true;
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
    async fn a_name_is_looked_up_when_a_thread_is_free_for_it() {
        let threads = Arc::new(Semaphore::new(1));
        let taken = threads.clone().try_acquire_owned().unwrap();
        let mut looked_up = Resolver(threads).call("127.0.0.1".parse().unwrap());
        assert!((&mut looked_up).now_or_never().is_none());
        drop(taken);
        assert_eq!(looked_up.await.unwrap().next(), Some(([127, 0, 0, 1], 0).into()));
    }
}
