//! Opens a tunnel through an HTTP proxy with CONNECT (RFC 9110, section 9.3.6).
//!
//! hyper-util's tunnel accepts only the status 200, and its errors have no public type.

use std::{
    error::Error,
    io,
    task::{self, Poll},
};

use futures_util::future::BoxFuture;
use http::{HeaderValue, StatusCode, Uri, header::PROXY_AUTHORIZATION};
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tower::{Service, ServiceExt as _};

use super::AGENT;

/// The most bytes of a proxy's response, with the interim responses before it.
pub(super) const MAX_HEAD: usize = 64 * 1024;

/// The proxy opened no tunnel.
#[derive(Debug, thiserror::Error)]
pub(super) enum TunnelError {
    /// There is no connection to the proxy.
    #[error("no connection to the proxy")]
    Connect(#[source] Box<dyn Error + Send + Sync>),
    /// The connection to the proxy failed.
    #[error("the connection to the proxy failed")]
    Io(#[from] io::Error),
    /// The proxy wants other credentials.
    #[error("proxy authorization required")]
    Unauthorized,
    /// The proxy refused, or did not answer with HTTP.
    #[error("rejected by the proxy")]
    Rejected,
}

/// Opens tunnels through one proxy.
#[derive(Clone)]
pub(super) struct Tunnel<C> {
    connector: C,
    proxy: Uri,
    authorization: Option<HeaderValue>,
}

impl<C> Tunnel<C> {
    /// Creates a connector that connects to the proxy with `connector`.
    pub(super) fn new(connector: C, proxy: Uri, authorization: Option<HeaderValue>) -> Self {
        Self { connector, proxy, authorization }
    }
}

impl<C> Service<Uri> for Tunnel<C>
where
    C: Service<Uri, Error = Box<dyn Error + Send + Sync>> + Clone + Send + 'static,
    C::Response: Read + Write + Unpin + Send,
    C::Future: Send,
{
    type Response = C::Response;
    type Error = TunnelError;
    type Future = BoxFuture<'static, Result<C::Response, TunnelError>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), TunnelError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let Self { connector, proxy, authorization } = self.clone();
        Box::pin(async move {
            let stream = connector.oneshot(proxy).await.map_err(TunnelError::Connect)?;
            let mut stream = TokioIo::new(stream);
            stream.write_all(&request(&to, authorization.as_ref())).await?;
            stream.flush().await?;
            response(&mut stream).await?;
            Ok(stream.into_inner())
        })
    }
}

/// Returns the CONNECT request for the authority of a URL.
fn request(to: &Uri, authorization: Option<&HeaderValue>) -> Vec<u8> {
    let host = to.host().unwrap_or_default();
    let port = to.port_u16().unwrap_or(443);
    let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n").into_bytes();
    for (name, value) in [("User-Agent", Some(&AGENT)), (PROXY_AUTHORIZATION.as_str(), authorization)] {
        if let Some(value) = value {
            request.extend([name.as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
    }
    request.extend(b"\r\n");
    request
}

/// Reads the response, after any interim responses, up to the end of its head. The status of a refusal is sufficient.
///
/// Reads byte by byte, because what follows the head belongs to the tunnel.
pub(super) async fn response(stream: &mut (impl AsyncRead + Unpin)) -> Result<(), TunnelError> {
    let mut left = MAX_HEAD;
    loop {
        let status = status(&line(stream, &mut left).await?).ok_or(TunnelError::Rejected)?;
        let is_interim = status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS;
        if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            return Err(TunnelError::Unauthorized);
        }
        if !is_interim && !status.is_success() {
            return Err(TunnelError::Rejected);
        }
        while !line(stream, &mut left).await?.is_empty() {}
        if status.is_success() {
            return Ok(());
        }
    }
}

/// Reads a line, without its line end, of at most `left` bytes.
async fn line(stream: &mut (impl AsyncRead + Unpin), left: &mut usize) -> Result<Vec<u8>, TunnelError> {
    let mut line = Vec::new();
    loop {
        *left = left.checked_sub(1).ok_or(TunnelError::Rejected)?;
        match stream.read_u8().await? {
            b'\n' => break,
            byte => line.push(byte),
        }
    }
    line.pop_if(|last| *last == b'\r');
    Ok(line)
}

/// Parses a status line (RFC 9112, section 4).
fn status(line: &[u8]) -> Option<StatusCode> {
    match line.strip_prefix(b"HTTP/1.")? {
        [b'0' | b'1', b' ', code @ ..] => {
            let (code, after) = code.split_at_checked(3)?;
            matches!(after, [] | [b' ', ..]).then(|| StatusCode::from_bytes(code).ok())?
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::{MAX_HEAD, TunnelError, response};

    /// Returns the outcome of a response, and what is left of it for the tunnel.
    async fn outcome(bytes: &[u8]) -> (Result<(), TunnelError>, Vec<u8>) {
        let mut stream = bytes;
        let outcome = response(&mut stream).await;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        (outcome, rest)
    }

    #[tokio::test]
    async fn any_2xx_opens_the_tunnel_after_any_1xx() {
        for head in [
            "HTTP/1.1 200 Connection established\r\n\r\n",
            "HTTP/1.0 200 OK\r\nVia: x\r\n\r\n",
            "HTTP/1.1 200\n\n",
            "HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 204 \r\n\r\n",
            "HTTP/1.1 299 x\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 102 x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        ] {
            let (outcome, rest) = outcome(format!("{head}tunnel").as_bytes()).await;
            assert!(outcome.is_ok(), "{head:?}: {outcome:?}");
            assert_eq!(rest, b"tunnel", "{head:?}");
        }
    }

    #[tokio::test]
    async fn a_refusal_needs_only_its_status_line() {
        for status_line in ["HTTP/1.1 407 Proxy Authentication Required\r\n", "HTTP/1.0 407\n"] {
            let (outcome, _) = outcome(status_line.as_bytes()).await;
            assert!(matches!(outcome, Err(TunnelError::Unauthorized)), "{status_line:?}: {outcome:?}");
        }
        for bytes in [
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "HTTP/1.1 302 Found\r\n",
            "HTTP/1.1 403 Forbidden\r\n",
            "HTTP/1.1 503\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 2xx OK\r\n\r\n",
            "SSH-2.0-x\r\n",
            "\r\n",
        ] {
            let (outcome, _) = outcome(bytes.as_bytes()).await;
            assert!(matches!(outcome, Err(TunnelError::Rejected)), "{bytes:?}: {outcome:?}");
        }
    }

    #[tokio::test]
    async fn a_response_without_end_is_not_read_to_its_end() {
        let line = format!("HTTP/1.1 200 {}", "x".repeat(MAX_HEAD));
        let head = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(MAX_HEAD));
        let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(MAX_HEAD / 20);
        for bytes in [line, head, interim] {
            let (outcome, rest) = outcome(bytes.as_bytes()).await;
            assert!(matches!(outcome, Err(TunnelError::Rejected)), "{outcome:?}");
            assert_eq!(bytes.len() - rest.len(), MAX_HEAD);
        }
    }

    #[tokio::test]
    async fn a_response_that_breaks_off_opens_no_tunnel() {
        for bytes in ["", "HTTP/1.1 2", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 100 Continue\r\n\r\n"] {
            let (outcome, _) = outcome(bytes.as_bytes()).await;
            assert!(matches!(outcome, Err(TunnelError::Io(_))), "{bytes:?}: {outcome:?}");
        }
    }
}
