//! The call itself, over tonic's channel.

use std::{
    error::Error,
    future::pending,
    io, iter,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, header::CONTENT_TYPE};
use hyper_util::rt::TokioIo;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use rustls::CertificateError;
use tokio::{
    net::{TcpStream, UnixStream},
    time::{Instant, sleep_until, timeout},
};
use tonic::{
    Code, Request, Status,
    body::Body,
    client::Grpc,
    metadata::MetadataMap,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tower::{ServiceBuilder, service_fn};

use super::{
    address::{Address, is_localhost},
    codec::DynamicCodec,
    failure::Failure,
};
use crate::{clock, config::Pem, grpc::dry_run};

/// The largest reply in bytes. The gateway makes a reply from at most 1 MiB of JSON.
const MAX_REPLY: usize = 4 * 1024 * 1024;

/// The longest time of connecting, TLS included. A stream without a deadline has no other limit.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the end of a call is waited for that should be a dry run, and is not.
const NO_DRY_RUN_TIMEOUT: Duration = Duration::from_secs(1);

/// The interval of PINGs, which end a stream whose gateway is gone. They are awaited for 20 s, hyper's default.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// The options of TLS.
pub(super) struct Tls {
    /// The trust roots, in PEM; the system's by default.
    pub(super) ca: Option<Pem>,
    /// The client certificate and its key, in PEM.
    pub(super) identity: Option<(Pem, Pem)>,
    /// The name in the gateway's certificate; the host of the address by default.
    pub(super) server_name: Option<String>,
}

/// The gateway to call.
pub(super) struct Server {
    pub(super) address: Address,
    /// `None` for plain text.
    pub(super) tls: Option<Tls>,
}

impl Server {
    async fn connect(&self) -> Result<Channel, Failure> {
        let endpoint = self.endpoint()?;
        let connect = async {
            match &self.address {
                // Plain text must not follow a name to another machine.
                Address::Tcp(authority) if self.tls.is_none() && is_localhost(authority.host()) => {
                    let port = authority.port_u16().unwrap_or_default();
                    let connect = move |_| async move { connect_to_loopback(port).await.map(TokioIo::new) };
                    endpoint.connect_with_connector(service_fn(connect)).await
                }
                Address::Tcp(_) => endpoint.connect().await,
                Address::Unix(path) => {
                    let path = path.clone();
                    let connect = move |_| {
                        let stream = UnixStream::connect(path.clone());
                        async { stream.await.map(TokioIo::new) }
                    };
                    endpoint.connect_with_connector(service_fn(connect)).await
                }
            }
        };
        let problem = match timeout(CONNECT_TIMEOUT, connect).await {
            Ok(Ok(channel)) => return Ok(channel),
            Ok(Err(error)) => Arc::new(error) as Arc<dyn Error + Send + Sync>,
            Err(elapsed) => Arc::new(elapsed),
        };
        let hint = connect_hint(&*problem).unwrap_or_else(|| self.rejected_hint());
        let mut status = Status::unavailable(format!("no connection to {}{hint}", self.address));
        status.set_source(problem);
        Err(Failure::Status(status))
    }

    /// Returns the failure of a call. A status of this side of the connection has a source, and says little itself.
    fn failure(&self, status: Status, hint: &str) -> Failure {
        let is_connection =
            matches!(status.code(), Code::Cancelled | Code::Internal | Code::Unavailable | Code::Unknown);
        if status.source().is_none() || !is_connection {
            return Failure::Status(status);
        }
        let mut explained = Status::unavailable(format!("the connection to {} failed{hint}", self.address));
        explained.set_source(Arc::new(status));
        Failure::Status(explained)
    }

    /// Returns why a connection may have failed after the handshake, as far as this side sees it.
    fn rejected_hint(&self) -> &'static str {
        let has_identity = self.tls.as_ref().is_some_and(|tls| tls.identity.is_some());
        if has_identity { " (perhaps the gateway rejected the client certificate)" } else { "" }
    }

    /// Returns what it means that a request was sent, and there is no response at all.
    fn sent_hint(&self) -> &'static str {
        match &self.tls {
            None => "; the request may have been carried out (for a listener with TLS, use --tls)",
            Some(Tls { identity: Some(_), .. }) => {
                "; the request may have been carried out (or perhaps the gateway rejected the client certificate)"
            }
            Some(_) => "; the request may have been carried out",
        }
    }

    fn endpoint(&self) -> Result<Endpoint, Failure> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let authority = match &self.address {
            Address::Tcp(authority) => authority.as_str(),
            Address::Unix(_) => "localhost", // the gateway rejects the path as authority
        };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{authority}"))
            .and_then(|endpoint| endpoint.user_agent(concat!("scm-gateway/", env!("CARGO_PKG_VERSION"))))
            .map_err(|error| Failure::usage("--address", &error))?
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL);
        let Some(tls) = &self.tls else { return Ok(endpoint) };
        let mut config = ClientTlsConfig::new();
        config = match &tls.ca {
            Some(pem) => config.ca_certificate(Certificate::from_pem(pem)),
            None => config.with_native_roots(),
        };
        if let Some((certificate, key)) = &tls.identity {
            config = config.identity(Identity::from_pem(certificate, key));
        }
        if let Some(name) = &tls.server_name {
            config = config.domain_name(name);
        }
        let has_options = tls.ca.is_some() || tls.identity.is_some() || tls.server_name.is_some();
        // Without options, only the system's CA certificates can be the problem.
        let option = if has_options { "TLS" } else { "TLS (--cacert sets the CA of the gateway's certificate)" };
        endpoint.tls_config(config).map_err(|error| Failure::usage(option, &error))
    }
}

async fn connect_to_loopback(port: u16) -> io::Result<TcpStream> {
    let addresses = [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
    TcpStream::connect(&addresses[..] as &[SocketAddr]).await
}

/// Returns which option may help after a failed handshake.
fn connect_hint(problem: &(dyn Error + 'static)) -> Option<&'static str> {
    const PLAINTEXT: &str = " (for a listener without TLS, use --plaintext)";
    let hint = |error: &(dyn Error + 'static)| {
        let error = error.downcast_ref::<io::Error>()?;
        match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidMessage(_)) => Some(PLAINTEXT),
            Some(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            )) => Some(" (--cacert sets the CA of the gateway's certificate)"),
            Some(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Some(" (--servername sets the name in the gateway's certificate)"),
            _ if error.kind() == io::ErrorKind::UnexpectedEof => Some(PLAINTEXT),
            _ => None,
        }
    };
    iter::successors(Some(problem), |&error| error.source()).find_map(hint)
}

/// Drops the body of a response that is not gRPC, such as the error page of a proxy. tonic then maps the HTTP status.
fn without_other_body(response: http::Response<Body>) -> http::Response<Body> {
    let content_type = response.headers().get(CONTENT_TYPE);
    let is_grpc = content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if is_grpc { response } else { response.map(|_| Body::empty()) }
}

/// A call.
pub(super) struct Call {
    pub(super) method: MethodDescriptor,
    pub(super) request: DynamicMessage,
    pub(super) headers: HeaderMap,
    /// The deadline of the call, its connection included; `None` for no deadline.
    pub(super) timeout: Option<Duration>,
}

/// Calls a method, and passes each response to `print`.
pub(super) async fn call(
    server: &Server,
    call: Call,
    print: impl AsyncFnMut(DynamicMessage) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let limit = call.timeout;
    let deadline = limit.and_then(|timeout| clock::monotonic().checked_add(timeout));
    let expired = async {
        match deadline {
            Some(deadline) => sleep_until(deadline).await,
            None => pending().await,
        }
    };
    tokio::select! {
        biased; // tonic's own timer would return CANCELLED
        () = expired => {
            let limit = humantime::format_duration(limit.unwrap_or_default());
            Err(Failure::Status(Status::deadline_exceeded(format!("no response within {limit}"))))
        }
        result = call.send(server, deadline, print) => result,
    }
}

impl Call {
    async fn send(
        self,
        server: &Server,
        deadline: Option<Instant>,
        mut print: impl AsyncFnMut(DynamicMessage) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let channel = ServiceBuilder::new().map_response(without_other_body).service(server.connect().await?);
        let mut client = Grpc::new(channel).max_decoding_message_size(MAX_REPLY);
        client
            .ready()
            .await
            .map_err(|error| server.failure(Status::from_error(error.into()), server.rejected_hint()))?;
        let path = format!("/{}/{}", self.method.parent_service().full_name(), self.method.name());
        let path = path.parse().expect("the name of a method is a path");
        let is_dry_run = self.headers.get(dry_run::KEY).is_some_and(|value| value != "false");
        let mut request = Request::new(self.request);
        *request.metadata_mut() = MetadataMap::from_headers(self.headers);
        if let Some(deadline) = deadline {
            let rest = deadline.saturating_duration_since(clock::monotonic());
            request.set_timeout(rest + Duration::from_millis(1)); // tonic's timer must not be the first to expire
        }
        // A unary reply is a stream with one message.
        let responses = client.server_streaming(request, path, DynamicCodec(self.method.output())).await;
        let responses = responses.map_err(|status| server.failure(status, server.sent_hint()))?;
        let is_ignored = is_dry_run && responses.metadata().get(dry_run::KEY).is_none_or(|value| value != "true");
        let mut responses = responses.into_inner();
        loop {
            let response = responses.message();
            let response = if is_ignored {
                timeout(NO_DRY_RUN_TIMEOUT, response).await.unwrap_or(Ok(None))
            } else {
                response.await
            };
            // A status does not tell whether the gateway knows dry runs.
            let Some(response) = response.map_err(|status| server.failure(status, ""))? else { break };
            print(response).await?;
            if is_ignored && self.method.is_server_streaming() {
                break; // it would not end
            }
        }
        if is_ignored { Err(Failure::NoDryRun) } else { Ok(()) }
    }
}
