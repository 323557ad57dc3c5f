//! Failures of TLS in the handshake, when nothing was sent, and after it, when the request may have been carried out.

use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::{
    CipherSuite, ConnectionTrafficSecrets, ProtocolVersion, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs::{ALL_CIPHER_SUITES, default_provider},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use scm_gateway::{
    clock::{Clock, monotonic},
    config,
    error::{Error, Progress, Reason},
    ops::telemetry::Telemetry,
    scm::{
        api::{Method, RestMethod, methods::SaveInfo, translate},
        client::{CallOptions, Upstream},
    },
    validate,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use crate::harness::{environment, folder::Folder, pki::Authority, sample};

/// A method like SaveInfo that is not idempotent.
static NOT_IDEMPOTENT: LazyLock<Method> = LazyLock::new(|| Method { idempotent: false, ..SaveInfo::METHOD.clone() });

const TLS_1_2_SUITE: CipherSuite = CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
const TLS_1_3_SUITE: CipherSuite = CipherSuite::TLS13_AES_128_GCM_SHA256;

/// Content types (RFC 8446, 5.1).
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// A `HelloRequest` (RFC 5246, 7.4.1.1).
const HELLO_REQUEST: [u8; 4] = [0; 4];

/// What the server does with a connection.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Sends these bytes instead of a ServerHello, and closes.
    InHandshake(&'static [u8]),
    /// Requires a client certificate.
    RequiresCertificate,
    /// Reads the request, sends records of these types and contents, and closes.
    Records(&'static [(u8, &'static [u8])]),
    /// Reads the request, sends these bytes as they are, and closes.
    Bytes(&'static [u8]),
    /// Reads the request, and resets the connection.
    Reset,
}

/// A TLS server with a fault. Counts what reaches it.
struct Server {
    endpoint: String,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Server {
    async fn start(authority: &Authority, version: &'static SupportedProtocolVersion, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let acceptor = TlsAcceptor::from(Arc::new(server_config(authority, version, fault)));
        let (connections, requests) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let server = Self { endpoint, connections: connections.clone(), requests: requests.clone() };
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                connections.fetch_add(1, Relaxed);
                if let Fault::InHandshake(bytes) = fault {
                    assert!(socket.read(&mut [0; 4096]).await.unwrap() > 0);
                    socket.write_all(bytes).await.unwrap();
                } else if let Ok(mut stream) = acceptor.accept(socket).await {
                    read_request(&mut stream).await;
                    requests.fetch_add(1, Relaxed);
                    fail(stream, fault).await;
                }
            }
        });
        server
    }
}

fn server_config(authority: &Authority, version: &'static SupportedProtocolVersion, fault: Fault) -> ServerConfig {
    let issued = authority.server();
    let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let mut provider = default_provider();
    provider.cipher_suites = ALL_CIPHER_SUITES
        .iter()
        .copied()
        .filter(|suite| [TLS_1_2_SUITE, TLS_1_3_SUITE].contains(&suite.suite()))
        .collect();
    let provider = Arc::new(provider);
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[version]).unwrap();
    let builder = if let Fault::RequiresCertificate = fault {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&authority.pem)).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let mut config = builder.with_single_cert(vec![certificate(&issued.certificate)], key).unwrap();
    config.enable_secret_extraction = true;
    config
}

/// Reads a whole request.
async fn read_request(stream: &mut TlsStream<TcpStream>) {
    let mut request = Vec::new();
    let is_whole = |request: &[u8]| {
        let text = str::from_utf8(request).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        body.len() == length.parse::<usize>().unwrap()
    };
    while !is_whole(&request) {
        assert!(stream.read_buf(&mut request).await.unwrap() > 0);
    }
}

/// Fails a connection whose request was read.
async fn fail(stream: TlsStream<TcpStream>, fault: Fault) {
    let (mut socket, tls) = stream.into_inner();
    match fault {
        Fault::Records(records) => {
            let version = tls.protocol_version().unwrap();
            let (sequence, secrets) = tls.dangerous_extract_secrets().unwrap().tx;
            for (sequence, (kind, content)) in (sequence..).zip(records) {
                socket.write_all(&record(version, &secrets, sequence, *kind, content)).await.unwrap();
            }
        }
        Fault::Bytes(bytes) => socket.write_all(bytes).await.unwrap(),
        Fault::Reset => return socket.set_zero_linger().unwrap(),
        Fault::InHandshake(_) | Fault::RequiresCertificate => {}
    }
    socket.shutdown().await.unwrap();
    while matches!(socket.read(&mut [0; 4096]).await, Ok(1..)) {} // so that the close is no reset
}

/// Encrypts a record with AES-GCM (RFC 5288 and RFC 8446, 5.2).
fn record(
    version: ProtocolVersion,
    secrets: &ConnectionTrafficSecrets,
    sequence: u64,
    kind: u8,
    content: &[u8],
) -> Vec<u8> {
    let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else { panic!("the suites use AES-128-GCM") };
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key.as_ref()).unwrap());
    let mut nonce: [u8; 12] = iv.as_ref().try_into().unwrap();
    for (byte, counter) in nonce[4..].iter_mut().zip(sequence.to_be_bytes()) {
        *byte ^= counter;
    }
    let header = |kind: u8, length: usize| [&[kind, 3, 3][..], &u16::try_from(length).unwrap().to_be_bytes()].concat();
    let mut sealed = content.to_vec();
    let (outer, explicit, aad) = if version == ProtocolVersion::TLSv1_3 {
        sealed.push(kind);
        let header = header(APPLICATION_DATA, sealed.len() + 16);
        (header.clone(), &[][..], header)
    } else {
        let outer = header(kind, 8 + content.len() + 16);
        (outer, &nonce[4..], [&sequence.to_be_bytes()[..], &header(kind, content.len())].concat())
    };
    let explicit = explicit.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut sealed).unwrap();
    [outer, explicit, sealed].concat()
}

/// Makes a call that may be retried, or one that may not, and returns its error.
async fn call(server: &Server, authority: &Authority, idempotent: bool) -> Error {
    let folder = Folder::new();
    let ca = folder.file("ca.pem", &authority.pem);
    let variables = [
        ("SCM_GATEWAY__UPSTREAM__CA_FILE", ca.as_str()),
        ("SCM_GATEWAY__UPSTREAM__INITIAL_BACKOFF", "1ms"),
        ("SCM_GATEWAY__UPSTREAM__MAX_BACKOFF", "1ms"),
    ];
    let clock = Clock::system();
    let config = config::load(None, &environment(&server.endpoint, &variables), &clock).unwrap();
    let telemetry = Arc::new(Telemetry::check(&config.telemetry).unwrap());
    let shutdown = CancellationToken::new();
    let upstream = Upstream::new(&config.upstream, &config.projects, telemetry, clock, 1, shutdown).unwrap();
    let project = upstream.projects().default_project();
    let mut message = sample();
    message.project_id = project.id.to_string();
    let mut request = translate::<SaveInfo>(&validate::check(message).unwrap());
    if !idempotent {
        request.method = &NOT_IDEMPOTENT;
    }
    let options = CallOptions { deadline: monotonic() + upstream.timeout(), parent: &opentelemetry::Context::new() };
    upstream.call(&request, project, &options).await.unwrap_err()
}

#[tokio::test]
async fn after_the_request_the_outcome_is_unknown() {
    let authority = Authority::new();
    let old = &[&TLS12][..];
    let both = &[&TLS12, &TLS13][..];
    let (failed, closed) = ("TLS error after the handshake", "connection closed");
    let fatal = |description: &'static [u8; 2]| Fault::Records(Box::leak(Box::new([(ALERT, &description[..])])));
    for (versions, fault, cause) in [
        // What OpenSSL does after it has asked for renegotiation and the client has declined.
        (old, Fault::Records(&[(HANDSHAKE, &HELLO_REQUEST), (ALERT, &[2, 40])]), failed),
        (old, Fault::Records(&[(HANDSHAKE, &HELLO_REQUEST)]), closed),
        (old, Fault::Records(&[(HANDSHAKE, &HELLO_REQUEST), (HANDSHAKE, &HELLO_REQUEST)]), failed),
        (both, fatal(&[2, 10]), failed),
        (both, fatal(&[2, 20]), failed),
        (both, fatal(&[2, 40]), failed),
        (both, fatal(&[2, 42]), failed),
        (both, fatal(&[2, 46]), failed),
        (both, fatal(&[2, 48]), failed),
        (both, fatal(&[2, 49]), failed),
        (both, fatal(&[2, 80]), failed),
        (both, fatal(&[2, 116]), failed),
        (both, fatal(&[1, 0]), closed),
        (both, Fault::Records(&[(HANDSHAKE, &[1, 0, 0, 0])]), failed),
        (both, Fault::Records(&[(APPLICATION_DATA, b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{")]), closed),
        (both, Fault::Bytes(b"\x17\x03\x03\0\x20no record of this connection, as"), failed),
        (both, Fault::Bytes(b"\x15\x03\x03\0\x02\x02\x28"), failed),
        (both, Fault::Bytes(b"\x17\x03\x03\xff\xff"), failed),
        (both, Fault::Bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n"), failed),
        (both, Fault::Bytes(b""), closed),
        (both, Fault::Reset, "connection reset"),
    ] {
        for version in versions {
            for (idempotent, attempts, reason) in
                [(true, 3, Reason::UpstreamUnavailable), (false, 1, Reason::UpstreamOutcomeUnknown)]
            {
                let server = Server::start(&authority, version, fault).await;
                let error = call(&server, &authority, idempotent).await;
                let at = format!("{fault:?}, {version:?}, {idempotent}: {error:?}");
                assert_eq!(
                    (error.reason, error.progress, error.attempts),
                    (reason, Progress::MaybeSent, attempts),
                    "{at}"
                );
                assert_eq!((error.cause, server.requests.load(Relaxed)), (Some(cause), attempts as usize), "{at}");
            }
        }
    }
}

#[tokio::test]
async fn in_the_handshake_nothing_was_sent() {
    let authority = Authority::new();
    let other = Authority::new();
    let tls = (1, Reason::UpstreamTls);
    let lost = (3, Reason::UpstreamUnavailable);
    for (fault, trusted, (attempts, reason)) in [
        (Fault::InHandshake(b"\x15\x03\x03\0\x02\x02\x28"), &authority, tls),
        (Fault::InHandshake(b"\x15\x03\x03\0\x02\x02\x46"), &authority, tls),
        (Fault::InHandshake(b"HTTP/1.1 400 Bad Request\r\n\r\n"), &authority, tls),
        (Fault::InHandshake(b""), &authority, lost),
        (Fault::Bytes(b""), &other, tls),
        (Fault::RequiresCertificate, &authority, tls),
    ] {
        for version in [&TLS12, &TLS13] {
            for idempotent in [true, false] {
                let server = Server::start(&authority, version, fault).await;
                let error = call(&server, trusted, idempotent).await;
                let at = format!("{fault:?}, {version:?}, {idempotent}: {error:?}");
                assert_eq!(
                    (error.reason, error.progress, error.attempts),
                    (reason, Progress::NotSent, attempts),
                    "{at}"
                );
                let counts = (server.connections.load(Relaxed), server.requests.load(Relaxed));
                assert_eq!(counts, (attempts as usize, 0), "{at}");
            }
        }
    }
}
