//! TLS connections that fail or cannot be trusted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
    version::TLS13,
};
use scm_emulator::{Emulator, Options, Then, Tls};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tonic::{Code, Request};

use super::{Pair, SUCCESS, expect, gateway, head, then};
use crate::harness::{assert_status, emulator, folder::Folder, pki::Authority, sample};

/// Starts an emulator with TLS, and a gateway that trusts this authority.
async fn over_tls(tls: Tls, trusted: &Tls) -> Pair {
    over_tls_through(tls, trusted, None).await
}

/// Like [`over_tls`], optionally through a proxy.
pub(super) async fn over_tls_through(tls: Tls, trusted: &Tls, proxy: Option<&str>) -> Pair {
    let folder = Folder::new();
    let ca = folder.file("ca.pem", &trusted.ca_pem());
    let emulator = Emulator::start(Options { tls: Some(tls), ..Options::default() }).await.unwrap();
    let mut variables = vec![("SCM_GATEWAY__UPSTREAM__CA_FILE", ca.as_str())];
    variables.extend(proxy.map(|proxy| ("SCM_GATEWAY__UPSTREAM__PROXY", proxy)));
    let gateway = gateway(&emulator.endpoint(), &variables).await;
    Pair { emulator, gateway }
}

/// Asserts that no request is sent and the call is not retried.
async fn distrusted(tls: Tls, trusted: &Tls) {
    let pair = over_tls(tls, trusted).await;
    let status = pair.gateway.save(sample()).await.unwrap_err();
    expect(&status, 1, Code::Unavailable, "UPSTREAM_TLS");
    assert_eq!((pair.emulator.attempts(), pair.emulator.connections()), (0, 1));
}

#[tokio::test]
async fn trusted_certificate_succeeds() {
    let tls = Tls::generate();
    over_tls(tls.clone(), &tls).await.next_is_good().await;
}

/// In TLS 1.3 the client completes its handshake before the server rejects the missing client certificate.
#[tokio::test]
async fn server_that_requires_a_client_certificate() {
    let authority = Authority::new();
    let folder = Folder::new();
    let issued = authority.server();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap(),
        )
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let connections = Arc::new(AtomicUsize::new(0));
    let accepted = connections.clone();
    let server = tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            accepted.fetch_add(1, Ordering::Relaxed);
            assert!(acceptor.accept(socket).await.is_err(), "the gateway has no client certificate");
        }
    });
    let ca = folder.file("ca.pem", &authority.pem);
    let gateway = gateway(&endpoint, &[("SCM_GATEWAY__UPSTREAM__CA_FILE", &ca)]).await;
    let status = gateway.save(sample()).await.unwrap_err();
    expect(&status, 1, Code::Unavailable, "UPSTREAM_TLS");
    assert_eq!(connections.load(Ordering::Relaxed), 1);
    assert!(!server.is_finished());
}

#[tokio::test]
async fn untrusted_authority() {
    distrusted(Tls::generate(), &Tls::generate()).await;
}

#[tokio::test]
async fn self_signed_certificate() {
    distrusted(Tls::generate_self_signed(), &Tls::generate()).await;
}

#[tokio::test]
async fn expired_certificate() {
    let tls = Tls::generate_expired();
    distrusted(tls.clone(), &tls).await;
}

#[tokio::test]
async fn certificate_for_another_host() {
    let tls = Tls::generate_for("other.example");
    distrusted(tls.clone(), &tls).await;
}

/// Without `close_notify`, somebody else may have ended the connection, so it is not the end of the body.
#[tokio::test]
async fn cut_instead_of_the_close_that_ends_the_body() {
    let tls = Tls::generate();
    over_tls(tls.clone(), &tls).await.lost(then(head("X: y") + SUCCESS, Then::Cut)).await;
}

#[tokio::test]
async fn reset_in_the_middle_of_the_body() {
    let tls = Tls::generate();
    over_tls(tls.clone(), &tls).await.lost(then(head("Content-Length: 26") + "{", Then::Reset)).await;
}

#[tokio::test]
async fn plain_text_on_the_port() {
    let emulator = emulator().await;
    let gateway = gateway(&format!("https://{}", emulator.address()), &[]).await;
    let status = gateway.save(sample()).await.unwrap_err();
    expect(&status, 1, Code::Unavailable, "UPSTREAM_TLS");
    assert_eq!(emulator.journal().len(), 0);
}

/// Asserts the status for a server that sends `answer` after the ClientHello and then waits, or closes if it is empty.
async fn handshake(answer: &'static [u8], attempts: usize, reason: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let accepted = connections.clone();
    let server = tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            accepted.fetch_add(1, Ordering::Relaxed);
            let mut hello = [0; 4096];
            assert!(socket.read(&mut hello).await.unwrap() > 0);
            assert_eq!(hello[0], 0x16, "the first record is a handshake");
            socket.write_all(answer).await.unwrap();
            while !answer.is_empty() && matches!(socket.read(&mut hello).await, Ok(1..)) {}
        }
    });
    let gateway = gateway(&endpoint, &[("SCM_GATEWAY__UPSTREAM__CONNECT_TIMEOUT", "200ms")]).await;
    let status = gateway.save(sample()).await.unwrap_err();
    expect(&status, attempts, Code::Unavailable, reason);
    assert_eq!(connections.load(Ordering::Relaxed), attempts);
    server.abort();
}

/// A server without a newer version sends the alert `protocol_version`.
#[tokio::test]
async fn tls_1_1_only_by_alert() {
    handshake(b"\x15\x03\x02\0\x02\x02\x46", 1, "UPSTREAM_TLS").await;
}

#[tokio::test]
async fn tls_1_1_only_by_server_hello() {
    let hello = b"\x16\x03\x02\0\x2a\x02\0\0\x26\x03\x02\
        0123456789abcdef0123456789abcdef\0\xc0\x13\0";
    handshake(hello, 1, "UPSTREAM_TLS").await;
}

#[tokio::test]
async fn rejected_handshake() {
    handshake(b"\x15\x03\x03\0\x02\x02\x28", 1, "UPSTREAM_TLS").await;
}

/// No connection was established, so the attempt is retried.
#[tokio::test]
async fn closed_in_the_middle_of_the_handshake() {
    handshake(b"", 3, "UPSTREAM_UNAVAILABLE").await;
}

#[tokio::test]
async fn hanging_in_the_middle_of_the_handshake() {
    handshake(b"\x16\x03\x03", 3, "UPSTREAM_UNAVAILABLE").await;
}

/// With unverified credentials an attempt outlives its call, but a request whose write has not started is not sent: it
/// would undo a later save.
#[tokio::test]
async fn handshake_after_the_end_of_its_calls_sends_nothing() {
    let tls = Tls::generate();
    let folder = Folder::new();
    let ca = folder.file("ca.pem", &tls.ca_pem());
    let emulator = Emulator::start(Options { tls: Some(tls), ..Options::default() }).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let scm = emulator.address();
    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let opened = opened.clone();
            tokio::spawn(async move {
                let _permit = opened.acquire().await.unwrap();
                let _ = copy_bidirectional(&mut socket, &mut TcpStream::connect(scm).await.unwrap()).await;
            });
        }
    });
    let gateway = gateway(&endpoint, &[("SCM_GATEWAY__UPSTREAM__CA_FILE", &ca)]).await;

    let mut request = Request::new(sample());
    request.set_timeout(Duration::from_millis(200));
    let status = gateway.untimed_client().save_info(request).await.unwrap_err();
    assert_status(&status, Code::DeadlineExceeded, "DEADLINE", None);
    let mut cancelled = gateway.client.clone();
    assert!(timeout(Duration::from_millis(200), cancelled.save_info(sample())).await.is_err());
    gate.add_permits(100);
    for calls in 1..=5 {
        gateway.save(sample()).await.unwrap();
        assert_eq!(emulator.attempts(), calls);
    }
}
