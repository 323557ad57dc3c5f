//! TLS connections that are not to be trusted, or none.

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
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tonic::{Code, Request};

use super::{Pair, SUCCESS, expect, gateway, head, then};
use crate::harness::{assert_status, emulator, folder::Folder, pki::Authority, sample};

/// SCM over TLS, and a gateway that trusts this authority.
async fn over_tls(tls: Tls, trusted: &Tls) -> Pair {
    over_tls_with(tls, trusted, None).await
}

/// The same, perhaps by way of a proxy.
async fn over_tls_with(tls: Tls, trusted: &Tls, proxy: Option<&str>) -> Pair {
    let folder = Folder::new();
    let ca = folder.file("ca.pem", &trusted.ca_pem());
    let emulator = Emulator::start(Options { tls: Some(tls), ..Options::default() }).await.unwrap();
    let mut variables = vec![("SCM_GATEWAY__UPSTREAM__CA_FILE", ca.as_str())];
    variables.extend(proxy.map(|proxy| ("SCM_GATEWAY__UPSTREAM__PROXY", proxy)));
    let gateway = gateway(&emulator.endpoint(), &variables).await;
    Pair { emulator, gateway }
}

/// The head of a request.
async fn head_of(stream: &mut BufReader<TcpStream>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        stream.read_line(&mut head).await.unwrap();
    }
    head
}

/// No request goes out, and nobody tries again.
async fn distrusted(tls: Tls, trusted: &Tls) {
    let pair = over_tls(tls, trusted).await;
    let status = pair.gateway.save(sample()).await.unwrap_err();
    expect(&status, 1, Code::Unavailable, "UPSTREAM_TLS");
    assert_eq!((pair.emulator.attempts(), pair.emulator.connections()), (0, 1));
}

#[tokio::test]
async fn a_certificate_of_a_trusted_authority_is_good() {
    let tls = Tls::generate();
    over_tls(tls.clone(), &tls).await.next_is_good().await;
}

#[tokio::test]
async fn a_proxy_is_shown_its_password_and_passes_on_what_it_cannot_read() {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://user:p%40ss@{}", proxy.local_addr().unwrap());
    let tls = Tls::generate();
    let pair = over_tls_with(tls.clone(), &tls, Some(&url)).await;
    let scm = pair.emulator.address();
    let passing_on = tokio::spawn(async move {
        let mut stream = BufReader::new(proxy.accept().await.unwrap().0);
        let head = head_of(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let _ = copy_bidirectional(&mut stream, &mut TcpStream::connect(scm).await.unwrap()).await;
        head
    });
    pair.next_is_good().await;
    assert_eq!(pair.emulator.connections(), 1);
    drop(pair);
    let head = passing_on.await.unwrap().to_lowercase();
    assert!(head.starts_with(&format!("connect localhost:{} http/1.1\r\n", scm.port())), "{head}");
    assert!(head.contains("proxy-authorization: basic dxnlcjpwqhnz\r\n"), "{head}");
    let agent = concat!("user-agent: scm-gateway/", env!("CARGO_PKG_VERSION"), "\r\n");
    assert!(head.contains(agent), "{head}");
}

/// The gateway's configuration is wrong: nobody tries again.
#[tokio::test]
async fn a_proxy_that_takes_another_password() {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://user:pass@{}", proxy.local_addr().unwrap());
    let tls = Tls::generate();
    let pair = over_tls_with(tls.clone(), &tls, Some(&url)).await;
    let refusing = tokio::spawn(async move {
        for connections in 1.. {
            let mut stream = BufReader::new(proxy.accept().await.unwrap().0);
            head_of(&mut stream).await;
            let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(refusal).await.unwrap();
            assert_eq!(connections, 1, "one attempt");
        }
    });
    let status = pair.gateway.save(sample()).await.unwrap_err();
    expect(&status, 1, Code::Internal, "UPSTREAM_CONFIGURATION");
    assert_eq!(pair.emulator.connections(), 0);
    assert!(!refusing.is_finished());
}

/// With TLS 1.3 the handshake is over for us before the server says that it wants a certificate of ours.
#[tokio::test]
async fn that_wants_a_certificate_of_the_gateway() {
    let (authority, folder) = (Authority::new(), Folder::new());
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
            assert!(acceptor.accept(socket).await.is_err(), "nobody shows a certificate");
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
async fn of_an_authority_that_is_not_trusted() {
    distrusted(Tls::generate(), &Tls::generate()).await;
}

#[tokio::test]
async fn self_signed() {
    distrusted(Tls::generate_self_signed(), &Tls::generate()).await;
}

#[tokio::test]
async fn expired() {
    let tls = Tls::generate_expired();
    distrusted(tls.clone(), &tls).await;
}

#[tokio::test]
async fn for_another_host() {
    let tls = Tls::generate_for("other.example");
    distrusted(tls.clone(), &tls).await;
}

/// Without TLS's own farewell, the end of the connection may be somebody else's work: it is not the end of the body.
#[tokio::test]
async fn cut_where_the_close_would_end_the_body() {
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

/// What a client sees of a server that answers its first bytes so and then waits, or closes when there is no answer.
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
            assert_eq!(hello[0], 0x16, "a handshake, and nothing before it");
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

/// Alert `protocol_version`, as a server says that knows no newer one.
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
async fn a_handshake_that_is_refused() {
    handshake(b"\x15\x03\x03\0\x02\x02\x28", 1, "UPSTREAM_TLS").await;
}

/// No connection was made, and the next one may be.
#[tokio::test]
async fn closed_in_the_middle_of_the_handshake() {
    handshake(b"", 3, "UPSTREAM_UNAVAILABLE").await;
}

#[tokio::test]
async fn hanging_in_the_middle_of_the_handshake() {
    handshake(b"\x16\x03\x03", 3, "UPSTREAM_UNAVAILABLE").await;
}

/// A key in doubt is heard out, but what nobody waits for any more is not begun: it would undo what was saved since.
#[tokio::test]
async fn a_handshake_that_ends_after_its_calls_sends_nothing_of_them() {
    let (tls, folder) = (Tls::generate(), Folder::new());
    let ca = folder.file("ca.pem", &tls.ca_pem());
    let emulator = Emulator::start(Options { tls: Some(tls), ..Options::default() }).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let (scm, gate) = (emulator.address(), Arc::new(Semaphore::new(0)));
    let opened = gate.clone();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let opened = opened.clone();
            tokio::spawn(async move {
                let _passing = opened.acquire().await.unwrap();
                let _ = copy_bidirectional(&mut socket, &mut TcpStream::connect(scm).await.unwrap()).await;
            });
        }
    });
    let gateway = gateway(&endpoint, &[("SCM_GATEWAY__UPSTREAM__CA_FILE", &ca)]).await;

    let mut late = Request::new(sample());
    late.set_timeout(Duration::from_millis(200));
    let status = gateway.patient_client().save_info(late).await.unwrap_err();
    assert_status(&status, Code::DeadlineExceeded, "DEADLINE", None);
    let mut given_up = gateway.client.clone();
    assert!(timeout(Duration::from_millis(200), given_up.save_info(sample())).await.is_err());
    gate.add_permits(100);
    for calls in 1..=5 {
        gateway.save(sample()).await.unwrap();
        assert_eq!(emulator.attempts(), calls);
    }
}
