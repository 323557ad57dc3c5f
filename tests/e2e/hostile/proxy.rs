//! Proxies: how they open a tunnel, and how they refuse.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use scm_emulator::Tls;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tonic::Code;

use super::{Pair, expect, gateway, tls::over_tls_through};
use crate::harness::{emulator, sample};

/// A proxy that gives the same answer to every request, and then tunnels to `to`.
struct Proxy {
    address: String,
    connections: Arc<AtomicUsize>,
    /// The head of the last request.
    head: watch::Receiver<String>,
}

impl Proxy {
    /// Starts a proxy. Without `to`, it answers and closes.
    async fn start(answer: impl Into<Vec<u8>>, to: watch::Receiver<Option<u16>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let (last_head, head) = watch::channel(String::new());
        let accepted = connections.clone();
        let answer = answer.into();
        tokio::spawn(async move {
            loop {
                let mut stream = BufReader::new(listener.accept().await.unwrap().0);
                accepted.fetch_add(1, Relaxed);
                last_head.send_replace(read_head(&mut stream).await);
                let _ = stream.write_all(&answer).await; // the gateway need not read all of it
                let port = *to.borrow();
                if let Some(port) = port {
                    let mut scm = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    tokio::spawn(async move { copy_bidirectional(&mut stream, &mut scm).await });
                }
            }
        });
        Self { address, connections, head }
    }
}

/// Reads the head of a request.
async fn read_head(stream: &mut BufReader<TcpStream>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).await.unwrap() > 0 {}
    head
}

/// Starts a proxy that answers like this, with SCM behind it and a gateway in front of it.
async fn through(answer: impl Into<Vec<u8>>, user_info: &str, then_tunnels: bool) -> (Proxy, Pair) {
    let (scm, to) = watch::channel(None);
    let proxy = Proxy::start(answer, to).await;
    let url = format!("http://{user_info}{}", proxy.address);
    let tls = Tls::generate();
    let pair = over_tls_through(tls.clone(), &tls, Some(&url)).await;
    scm.send_replace(then_tunnels.then_some(pair.emulator.address().port()));
    (proxy, pair)
}

#[tokio::test]
async fn tunnels_are_opened_by_any_2xx_after_any_1xx() {
    let mut long = "HTTP/1.1 200 OK\r\n".to_owned();
    for number in 0..500 {
        write!(long, "X-Filler-{number}: {}\r\n", "x".repeat(80)).unwrap();
    }
    for answer in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.0 200 Connection established\r\n\r\n",
        "HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        &format!("{long}\r\n"),
    ] {
        let (proxy, pair) = through(answer, "", true).await;
        pair.next_is_good().await;
        pair.next_is_good().await;
        assert_eq!((proxy.connections.load(Relaxed), pair.emulator.connections()), (1, 1), "{answer:.40}");
        let head = proxy.head.borrow().to_lowercase();
        let port = pair.emulator.address().port();
        assert!(
            head.starts_with(&format!("connect localhost:{port} http/1.1\r\nhost: localhost:{port}\r\n")),
            "{head}"
        );
        let agent = concat!("user-agent: scm-gateway/", env!("CARGO_PKG_VERSION"), "\r\n");
        assert!(head.contains(agent) && !head.contains("proxy-authorization"), "{head}");
    }
}

#[tokio::test]
async fn user_and_password_go_out_as_the_octets_they_are() {
    for (user_info, expected) in [
        ("user:p%40ss@", "Basic dXNlcjpwQHNz"),
        ("user:p%E4ss@", "Basic dXNlcjpw5HNz"),
        ("%FF@", "Basic /zo="),
        ("user:p%C3%A4ss@", "Basic dXNlcjpww6Rzcw=="),
    ] {
        let (proxy, pair) = through("HTTP/1.1 200 OK\r\n\r\n", user_info, true).await;
        pair.next_is_good().await;
        let head = proxy.head.borrow().clone();
        let sent =
            head.lines().find_map(|line| line.split_once(": ").filter(|(name, _)| *name == "proxy-authorization"));
        assert_eq!(sent.map(|(_, value)| value), Some(expected), "{head}");
        assert!(pair.emulator.journal().iter().all(|sent| sent.header("proxy-authorization").is_none()));
    }
}

/// A refusal by 407 is a wrong configuration, so it is not retried; any other refusal may pass.
#[tokio::test]
async fn refusals_are_reported_whatever_their_length() {
    const LONG: usize = 1024 * 1024;
    let endless = "x".repeat(LONG);
    let lines = "X-Filler: x\r\n".repeat(LONG / 13);
    for (answer, attempts, code, reason) in [
        (
            "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
            1,
            Code::Internal,
            "UPSTREAM_CONFIGURATION",
        ),
        (&format!("HTTP/1.1 407 x\r\nX: {endless}\r\n\r\n"), 1, Code::Internal, "UPSTREAM_CONFIGURATION"),
        (&format!("HTTP/1.1 407 x\r\n{lines}\r\n"), 1, Code::Internal, "UPSTREAM_CONFIGURATION"),
        (&format!("HTTP/1.1 100 x\r\n\r\nHTTP/1.1 407 x\r\n{lines}\r\n"), 1, Code::Internal, "UPSTREAM_CONFIGURATION"),
        ("HTTP/1.1 407 x\r\nno header line\0\r\n", 1, Code::Internal, "UPSTREAM_CONFIGURATION"),
        (&format!("HTTP/1.1 403 Forbidden\r\n{lines}\r\n"), 3, Code::Unavailable, "UPSTREAM_UNAVAILABLE"),
        ("HTTP/1.1 302 Found\r\nLocation: http://x/\r\n\r\n", 3, Code::Unavailable, "UPSTREAM_UNAVAILABLE"),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", 3, Code::Unavailable, "UPSTREAM_UNAVAILABLE"),
        ("HTTP/1.1 503 Service Unavailable\r\n\r\n", 3, Code::Unavailable, "UPSTREAM_UNAVAILABLE"),
        (&format!("HTTP/1.1 200 {endless}"), 3, Code::Unavailable, "UPSTREAM_UNAVAILABLE"),
        (&"HTTP/1.1 100 x\r\n\r\n".repeat(LONG / 18), 3, Code::Unavailable, "UPSTREAM_UNAVAILABLE"),
        ("+OK ready\r\n", 3, Code::Unavailable, "UPSTREAM_UNAVAILABLE"),
        ("", 3, Code::Unavailable, "UPSTREAM_UNAVAILABLE"),
    ] {
        let (proxy, pair) = through(answer, "user:pass@", false).await;
        let status = pair.gateway.save(sample()).await.unwrap_err();
        expect(&status, attempts, code, reason);
        assert_eq!(proxy.connections.load(Relaxed), attempts, "{answer:.40}");
        assert_eq!(pair.emulator.attempts(), 0, "{answer:.40}");
    }
}

#[tokio::test]
async fn plain_requests_carry_the_authorization_for_the_proxy() {
    let (_, to) = watch::channel(None);
    let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let proxy = Proxy::start(answer, to).await;
    let emulator = emulator().await;
    let url = format!("http://user:p%E4ss@{}", proxy.address);
    let gateway = gateway(&emulator.endpoint(), &[("SCM_GATEWAY__UPSTREAM__PROXY", &url)]).await;
    let status = gateway.save(sample()).await.unwrap_err();
    expect(&status, 1, Code::Internal, "UPSTREAM_ERROR");
    let head = proxy.head.borrow().clone();
    assert!(head.starts_with(&format!("POST {}/v2/", emulator.endpoint())), "{head}");
    assert!(head.contains("proxy-authorization: Basic dXNlcjpw5HNz\r\n"), "{head}");
    assert_eq!(emulator.connections(), 0);
}
