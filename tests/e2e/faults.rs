//! When no good answer comes: the network, TLS, and answers that are none.

use scm_emulator::{Emulator, Options, Reply, Step, Tls};
use scm_gateway::clock::Clock;
use tonic::Code;

use crate::harness::{Gateway, assert_status, emulator, environment, sample};

/// What a call becomes whose every attempt is answered so.
async fn answered(step: Step, attempts: u32) -> tonic::Status {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    emulator.scripts(vec![step; attempts as usize]);
    let status = gateway.save(sample()).await.unwrap_err();
    assert_eq!(emulator.attempts(), attempts as usize);
    gateway.save(sample()).await.expect("the next call is good");
    status
}

#[tokio::test]
async fn nobody_listens() {
    let emulator = emulator().await;
    let endpoint = emulator.endpoint();
    drop(emulator);
    let gateway = Gateway::start(environment(&endpoint, &[]), Clock::system()).await;
    assert_status(&gateway.save(sample()).await.unwrap_err(), Code::Unavailable, "UPSTREAM_UNAVAILABLE", Some(3));
}

#[tokio::test]
async fn the_name_does_not_resolve() {
    let gateway = Gateway::start(environment("https://scm.invalid", &[]), Clock::system()).await;
    assert_status(&gateway.save(sample()).await.unwrap_err(), Code::Unavailable, "UPSTREAM_UNAVAILABLE", Some(3));
}

#[tokio::test]
async fn the_connection_breaks_before_the_answer() {
    for step in [Step::Close, Step::Reset, Step::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{".to_vec())] {
        assert_status(&answered(step, 3).await, Code::Unavailable, "UPSTREAM_UNAVAILABLE", Some(3));
    }
}

#[tokio::test]
async fn an_answer_that_is_none() {
    for step in [
        Step::Raw(b"hello\r\n\r\n".to_vec()),
        Step::Reply(Reply::json(200, "<html></html>")),
        Step::Reply(Reply::json(200, r#"{"request_info":"failed"}"#)),
        Step::Reply(Reply::json(200, "\u{feff}{\"request_info\":\"success\"}")),
        Step::Reply(Reply::new(206).body(r#"{"request_info":"success"}"#)),
        Step::Reply(Reply::new(302).header("Location", "http://127.0.0.1:1/")),
        Step::Reply(Reply::new(999)),
    ] {
        assert_status(&answered(step, 1).await, Code::Internal, "UPSTREAM_MALFORMED", Some(1));
    }
}

#[tokio::test]
async fn an_answer_over_the_cap() {
    let status = answered(Step::Reply(Reply::new(200).body(vec![b' '; 1024 * 1024 + 1])), 1).await;
    assert_status(&status, Code::Internal, "UPSTREAM_TOO_LARGE", Some(1));
}

#[tokio::test]
async fn an_answer_at_the_cap_is_read() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let mut body = br#"{"request_info":"success"}"#.to_vec();
    body.resize(1024 * 1024, b' ');
    emulator.script(Step::Reply(Reply::new(200).body(body)));
    gateway.save(sample()).await.unwrap();
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (emulator, elsewhere) = (emulator().await, crate::harness::emulator().await);
    let gateway = Gateway::of(&emulator).await;
    for status in [301, 302, 303, 307, 308] {
        let location = format!("{}/v2/x", elsewhere.endpoint());
        emulator.script(Step::Reply(Reply::new(status).header("Location", &location)));
        let status = gateway.save(sample()).await.unwrap_err();
        assert_status(&status, Code::Internal, "UPSTREAM_MALFORMED", Some(1));
    }
    assert_eq!(elsewhere.connections(), 0);
}

async fn over_tls(tls: Tls, trusted: bool) -> (Emulator, Result<(), tonic::Status>) {
    let ca = tempfile(&tls.ca_pem());
    let emulator = Emulator::start(Options { tls: Some(tls), ..Options::default() }).await.unwrap();
    let variable = [("SCM_GATEWAY__UPSTREAM__CA_FILE", ca.to_str().unwrap())];
    let gateway = Gateway::with(&emulator, if trusted { &variable } else { &[] }).await;
    let result = gateway.save(sample()).await.map(|_| ());
    std::fs::remove_file(ca).unwrap();
    (emulator, result)
}

fn tempfile(content: &str) -> std::path::PathBuf {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("scm-gateway-ca-{}-{number}.pem", std::process::id()));
    std::fs::write(&path, content).unwrap();
    path
}

#[tokio::test]
async fn a_certificate_of_a_trusted_ca_is_good() {
    let (emulator, result) = over_tls(Tls::generate(), true).await;
    result.unwrap();
    assert_eq!(emulator.journal().len(), 1);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_trusted_gets_no_request() {
    for (tls, trusted) in
        [(Tls::generate(), false), (Tls::generate_expired(), true), (Tls::generate_for("other.example"), true)]
    {
        let (emulator, result) = over_tls(tls, trusted).await;
        assert_status(&result.unwrap_err(), Code::Unavailable, "UPSTREAM_TLS", Some(1));
        assert_eq!(emulator.attempts(), 0);
    }
}

#[tokio::test]
async fn plain_text_on_the_tls_port_is_a_tls_failure() {
    let emulator = emulator().await;
    let endpoint = format!("https://127.0.0.1:{}", emulator.address().port());
    let gateway = Gateway::start(environment(&endpoint, &[]), Clock::system()).await;
    assert_status(&gateway.save(sample()).await.unwrap_err(), Code::Unavailable, "UPSTREAM_TLS", Some(1));
}

#[tokio::test]
async fn the_configured_proxy_is_asked() {
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    let emulator = emulator().await;
    let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__UPSTREAM__PROXY", &url)]).await;
    let mut client = gateway.client.clone();
    let call = tokio::spawn(async move { client.save_info(sample()).await });
    let (stream, _) = proxy.accept().await.unwrap();
    let line = BufReader::new(stream).lines().next_line().await.unwrap().unwrap();
    assert!(line.starts_with(&format!("POST {}/v2/", emulator.endpoint())), "{line}");
    assert_eq!(emulator.connections(), 0);
    call.abort();
}
