//! A server that reads one request on each connection and sends scripted bytes.

use std::sync::{Arc, Mutex};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use scm_harness::pki::Issued;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// A request as it was received.
#[derive(Debug, Clone)]
pub(super) struct Received {
    /// Method and target.
    pub(super) line: String,
    headers: String,
    pub(super) body: String,
}

impl Received {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.lines().filter_map(|line| line.split_once(": "));
        headers.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// A running server. Dropping it stops the server.
pub(super) struct Server {
    pub(super) port: u16,
    received: Arc<Mutex<Vec<Received>>>,
    listen: JoinHandle<()>,
}

/// Leaves the connection open without a response.
pub(super) const HANG: &str = "hang";

impl Server {
    /// Starts a server that sends these bytes, one after the other, and the last ones for each further request.
    pub(super) async fn start(replies: Vec<String>) -> Self {
        Self::with(replies, None).await
    }

    /// Starts a server with TLS.
    pub(super) async fn tls(replies: Vec<String>, certificate: &Issued) -> Self {
        let chain = vec![CertificateDer::from_pem_slice(certificate.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).unwrap();
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = builder.with_single_cert(chain, key).unwrap();
        Self::with(replies, Some(Arc::new(config).into())).await
    }

    async fn with(replies: Vec<String>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let received = Arc::<Mutex<Vec<Received>>>::default();
        let listen = {
            let received = received.clone();
            tokio::spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (replies, received, tls) = (replies.clone(), received.clone(), tls.clone());
                    tokio::spawn(async move {
                        match tls {
                            None => serve(stream, &replies, &received).await,
                            Some(tls) => {
                                let Ok(stream) = tls.accept(stream).await else { return };
                                serve(stream, &replies, &received).await;
                            }
                        }
                    });
                }
            })
        };
        Self { port, received, listen }
    }

    pub(super) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.listen.abort();
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, replies: &[String], received: &Mutex<Vec<Received>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let (line, headers) = head.split_once(" HTTP/1.1\r\n").unwrap();
    let mut request = Received { line: line.to_owned(), headers: headers.to_owned(), body: String::new() };
    let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    request.body = String::from_utf8(body).unwrap();
    let reply = {
        let mut received = received.lock().unwrap();
        received.push(request);
        replies.get(received.len() - 1).or(replies.last()).cloned().unwrap_or_default()
    };
    if reply == HANG {
        std::future::pending::<()>().await;
    }
    let _ = stream.write_all(reply.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// Returns the bytes of a response.
pub(super) fn response(status: u16, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} x\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}
