//! Requests with a valid signature: routes, the vendor's errors, HTTP, TLS, and the script.

#![allow(clippy::unwrap_used)]

#[path = "support/client.rs"]
mod client;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{CERTIFICATE, Call, ManualClock, call, connect, draft, read_answer, send, start};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use scm_emulator::{Account, Emulator, Options, Quota, Reply, SAMPLE_PROJECT, Step, Then, Tls};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

async fn assert_error(emulator: &Emulator, request: Call, status: u16, code: &str) {
    let request = request.sign();
    let answer = call(emulator, &request).await;
    let body = answer.json();
    assert_eq!((answer.status, &body["error_code"]), (status, &json!(code)));
    assert_eq!(answer.header("X-Request-Id").len(), 32);
    let id = body["request_id"].as_str().unwrap_or_default();
    let of_api_gateway = code.starts_with("APIG.");
    assert_eq!(id == answer.header("X-Request-Id"), of_api_gateway, "{code}");
    // The signature is valid, so the request is recorded, but no draft is stored.
    assert_eq!(emulator.journal().last().unwrap().target, request.target);
    assert_eq!(emulator.saved(SAMPLE_PROJECT, CERTIFICATE), None);
}

#[tokio::test]
async fn a_read_returns_the_saved_draft() {
    let emulator = start().await;
    assert_error(&emulator, Call::read(), 400, "SCM.0008").await;
    assert_eq!(call(&emulator, &Call::save().sign()).await.status, 200);
    let answer = call(&emulator, &Call::read().sign()).await;
    assert_eq!(answer.status, 200);
    let expected = json!({
        "domain_name": "www.xzz.com", "sans": "", "CSR": null, "country": "CN",
        "company_name": "Huawei Chengdu branch", "company_unit": "Human Resource Dept",
        "company_province": "Sichuan", "company_city": "Chengdu", "applicant_name": "Tom",
        "applicant_phone": "13212345678", "applicant_email": "9997342346@qq.com",
        "contact_name": "Jacky", "contact_phone": "13512345678", "contact_email": "jk@jk.ff",
        "bl": "0", "tl": "0"
    });
    assert_eq!(answer.json(), expected);
}

#[tokio::test]
async fn a_save_replaces_the_draft() {
    let clock = ManualClock::default();
    let emulator = Emulator::start(clock.options()).await.unwrap();
    for (domain, time) in [("a.example", "04:05:06"), ("b.example", "04:06:06")] {
        let mut body = draft();
        body["domain"] = domain.into();
        let save = Call::to("save", body.to_string().as_bytes()).sign();
        let answer = call(&emulator, &save).await;
        assert_eq!(answer.status, 200);
        let date = format!("Tue, 09 Aug 2022 {time} GMT");
        assert_eq!(answer.header("Date"), date);
        clock.advance(Duration::from_secs(60));
        let saved = emulator.saved(SAMPLE_PROJECT, CERTIFICATE).unwrap();
        assert_eq!(saved["domain"], domain);
    }
}

#[tokio::test]
async fn invalid_requests_get_the_vendors_errors() {
    let emulator = start().await;
    let at = |target: String| Call::save().with(|call| call.target = target);
    let cert = format!("/v2/{SAMPLE_PROJECT}/scm/cert");
    for target in [
        format!("{cert}/{CERTIFICATE}/delete"),
        format!("{cert}/{CERTIFICATE}/push"),
        format!("{cert}/{CERTIFICATE}/save/more"),
        format!("/v3/{SAMPLE_PROJECT}/scm/cert/{CERTIFICATE}/save"),
    ] {
        assert_error(&emulator, at(target), 404, "APIG.0101").await;
    }
    let get = Call::read().with(|call| call.method = "GET");
    assert_error(&emulator, get, 405, "APIG.0101").await;
    assert_error(&emulator, at(format!("{cert}/{CERTIFICATE}")), 405, "APIG.0101").await;
    let other = format!("/v2/fedcba9876543210fedcba9876543210/scm/cert/{CERTIFICATE}/save");
    assert_error(&emulator, at(other), 403, "SCM.0002").await;
    let text = Call::save().set("Content-Type", "text/json");
    assert_error(&emulator, text, 400, "SCM.0005").await;
    assert_error(&emulator, Call::to("save", b"[]"), 400, "SCM.0005").await;
    assert_error(&emulator, Call::to("save", b""), 400, "SCM.0005").await;
    assert_error(&emulator, Call::to("read", b"{}"), 400, "SCM.0005").await;
    for id in ["scs148111065101", "scs14811106510123", "abc1481110651012"] {
        let target = format!("{cert}/{id}/save");
        assert_error(&emulator, at(target), 400, "SCM.0008").await;
    }
    assert_eq!(emulator.rejections(), []);
}

#[tokio::test]
async fn a_content_type_may_have_parameters() {
    let emulator = start().await;
    let request = Call::save().set("Content-Type", "Application/JSON; charset=utf-8");
    assert_eq!(call(&emulator, &request.sign()).await.status, 200);
}

#[tokio::test]
async fn listed_certificates_get_the_vendors_errors() {
    let list = || vec![CERTIFICATE.to_owned()];
    let base = || ManualClock::default().options();
    let unknown = Options { unknown: list(), ..base() };
    let foreign = Options { foreign: list(), ..base() };
    let issued = Options { issued: list(), ..base() };
    for (options, code) in [(unknown, "SCM.0008"), (foreign, "SCM.0003"), (issued, "SCM.0010")] {
        let emulator = Emulator::start(options).await.unwrap();
        assert_error(&emulator, Call::save(), 400, code).await;
    }
}

#[tokio::test]
async fn a_connection_serves_several_requests() {
    let emulator = start().await;
    let mut stream = connect(&emulator).await;
    let mut ids = Vec::new();
    for request in [Call::save().sign(), Call::read().sign()] {
        stream.write_all(&request.bytes()).await.unwrap();
        let answer = read_answer(&mut stream).await.unwrap();
        assert_eq!(answer.status, 200);
        ids.push(answer.header("X-Request-Id").to_owned());
    }
    assert_ne!(ids[0], ids[1]);
    assert_eq!((emulator.connections(), emulator.attempts()), (1, 2));
    assert_eq!(emulator.open_connections(), 1);
    let last = Call::read().set("Connection", "close").sign();
    stream.write_all(&last.bytes()).await.unwrap();
    let answer = read_answer(&mut stream).await.unwrap();
    assert_eq!(answer.header("Connection"), "close");
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    emulator.wait_for_open_connections(0).await;
}

#[tokio::test]
async fn unsupported_framing_is_rejected() {
    let emulator = start().await;
    let post = "POST /x HTTP/1.1\r\nHost: a\r\n";
    let large = format!("X: {}\r\n\r\n", "x".repeat(70 * 1024));
    for (rest, status) in [
        ("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        ("Content-Length: 12582913\r\n\r\n", 413),
        ("Content-Length: x\r\n\r\n", 400),
        ("Content-Length: 0\r\nContent-Length: 0\r\n\r\n", 400),
        ("no colon\r\n\r\n", 400),
        (large.as_str(), 494),
    ] {
        let answer = send(&emulator, format!("{post}{rest}").as_bytes()).await;
        let answer = answer.unwrap();
        assert_eq!(answer.status, status, "{rest:.40}");
        assert_eq!(answer.json()["error_code"], "APIG.0201");
        assert_eq!(answer.header("Connection"), "close");
    }
    assert_eq!(emulator.attempts(), 6);
    assert_eq!((emulator.journal(), emulator.rejections()), (vec![], vec![]));
}

#[tokio::test]
async fn fragmented_and_large_requests_are_read() {
    let emulator = start().await;
    let request = Call::to("save", &vec![b' '; 12 * 1024 * 1024]).sign();
    let mut stream = connect(&emulator).await;
    for piece in request.bytes().chunks(1 << 20) {
        stream.write_all(piece).await.unwrap();
    }
    assert_eq!(read_answer(&mut stream).await.unwrap().status, 400);
    assert_eq!(emulator.journal()[0].body.len(), 12 * 1024 * 1024);
    for byte in Call::save().sign().bytes() {
        stream.write_all(&[byte]).await.unwrap();
    }
    assert_eq!(read_answer(&mut stream).await.unwrap().status, 200);
}

async fn handshake(emulator: &Emulator, trusted: &Tls) -> std::io::Result<BufReader<TlsStream<TcpStream>>> {
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(trusted.ca_pem().as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(emulator.address()).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    Ok(BufReader::new(connector.connect(name, socket).await?))
}

async fn start_tls(tls: &Tls) -> Emulator {
    let options = Options { tls: Some(tls.clone()), ..ManualClock::default().options() };
    Emulator::start(options).await.unwrap()
}

#[tokio::test]
async fn tls_connections_are_served() {
    let tls = Tls::generate();
    let emulator = start_tls(&tls).await;
    assert!(emulator.endpoint().starts_with("https://localhost:"));
    let mut stream = handshake(&emulator, &tls).await.unwrap();
    let request = Call::save().sign();
    for _ in 0..2 {
        stream.write_all(&request.bytes()).await.unwrap();
        assert_eq!(read_answer(&mut stream).await.unwrap().status, 200);
    }
    emulator.script(Step::Reset);
    stream.write_all(&request.bytes()).await.unwrap();
    assert_eq!(read_answer(&mut stream).await, None);
}

#[tokio::test]
async fn clients_reject_the_invalid_certificates() {
    let other_authority = Tls::generate();
    for (tls, expected) in [
        (Tls::generate_expired(), "Expired"),
        (Tls::generate_for("other.example"), "not valid for name"),
        (Tls::generate(), "UnknownIssuer"),
        (Tls::generate_self_signed(), "UnknownIssuer"),
    ] {
        let trusted = if expected == "UnknownIssuer" { &other_authority } else { &tls };
        let emulator = start_tls(&tls).await;
        let error = handshake(&emulator, trusted).await.unwrap_err().to_string();
        assert!(error.to_lowercase().contains(&expected.to_lowercase()), "{error}");
        emulator.wait_for_open_connections(0).await;
        assert_eq!((emulator.connections(), emulator.attempts()), (1, 0));
    }
}

#[tokio::test]
async fn scripted_responses_are_sent_in_order() {
    let emulator = start().await;
    emulator.scripts([
        Step::Reply(Reply::json(503, "{}").header("Retry-After", "1")),
        Step::Serve,
        Step::Reply(Reply::new(204)),
        Step::Reply(Reply::new(200).header("Content-Length", "1").body("{}")),
    ]);
    let mut stream = connect(&emulator).await;
    let request = Call::save().sign().bytes();
    stream.write_all(&request).await.unwrap();
    let answer = read_answer(&mut stream).await.unwrap();
    assert_eq!((answer.status, answer.header("Retry-After")), (503, "1"));
    assert_eq!(answer.header("Content-Length"), "2");
    assert_eq!(answer.json(), json!({}));
    assert_eq!(emulator.saved(SAMPLE_PROJECT, CERTIFICATE), None);
    stream.write_all(&request).await.unwrap();
    assert_eq!(read_answer(&mut stream).await.unwrap().status, 200);
    assert!(emulator.saved(SAMPLE_PROJECT, CERTIFICATE).is_some());
    stream.write_all(&request).await.unwrap();
    let answer = read_answer(&mut stream).await.unwrap();
    assert_eq!((answer.status, answer.header("Content-Length")), (204, ""));
    stream.write_all(&request).await.unwrap();
    assert_eq!(read_answer(&mut stream).await.unwrap().body, b"{");
    assert_eq!((emulator.journal().len(), emulator.steps_left()), (4, 0));
}

#[tokio::test]
async fn scripts_send_raw_bytes_close_and_reset() {
    let emulator = start().await;
    emulator.scripts([Step::Raw(b"HTP".to_vec()), Step::Close, Step::Reset]);
    let request = Call::save().sign().bytes();
    for expected in [Ok("HTP"), Ok(""), Err(std::io::ErrorKind::ConnectionReset)] {
        let mut stream = connect(&emulator).await;
        stream.write_all(&request).await.unwrap();
        let mut text = String::new();
        let read = stream.read_to_string(&mut text).await;
        let outcome = read.map(|_| text.as_str()).map_err(|error| error.kind());
        assert_eq!(outcome, expected);
    }
    assert_eq!(emulator.journal().len(), 3);
    assert_eq!(emulator.saved(SAMPLE_PROJECT, CERTIFICATE), None);
}

#[tokio::test]
async fn raw_bytes_leave_the_connection_as_scripted() {
    let emulator = start().await;
    let bytes = b"HTP".to_vec();
    let thens = [Then::KeepAlive, Then::Hang, Then::Cut, Then::Reset];
    emulator.scripts(thens.map(|then| Step::RawThen(bytes.clone(), then)));
    let request = Call::save().sign().bytes();
    let mut stream = connect(&emulator).await;
    for _ in 0..2 {
        stream.write_all(&request).await.unwrap();
        let mut three = [0; 3];
        stream.read_exact(&mut three).await.unwrap();
        assert_eq!(&three, b"HTP");
    }
    assert!(timeout(Duration::from_millis(50), stream.read(&mut [0])).await.is_err());
    drop(stream);
    emulator.wait_for_open_connections(0).await;
    for expected in [Ok(3), Err(std::io::ErrorKind::ConnectionReset)] {
        let mut stream = connect(&emulator).await;
        stream.write_all(&request).await.unwrap();
        let read = stream.read_to_end(&mut Vec::new()).await;
        assert_eq!(read.map_err(|error| error.kind()), expected);
    }
    assert_eq!((emulator.connections(), emulator.attempts()), (3, 4));
}

#[tokio::test]
async fn scripts_send_slow_and_endless_responses() {
    let emulator = start().await;
    let head = b"HTTP".to_vec();
    let every = Duration::from_millis(1);
    emulator.scripts([
        Step::Drip { head: head.clone(), bytes: b"/1.1".to_vec(), every },
        Step::Drip { head: head.clone(), bytes: b"/1.1".to_vec(), every: Duration::from_secs(3600) },
        Step::Endless { head, chunk: b"!?".to_vec() },
    ]);
    for expected in ["HTTP/1.1", "HTTP", "HTTP!?!?!?!?"] {
        let mut stream = connect(&emulator).await;
        stream.write_all(&Call::save().sign().bytes()).await.unwrap();
        let mut text = vec![0; expected.len()];
        stream.read_exact(&mut text).await.unwrap();
        assert_eq!(text, expected.as_bytes());
        drop(stream);
        emulator.wait_for_open_connections(0).await;
    }
}

#[tokio::test]
async fn close_unread_does_not_read_the_request() {
    let emulator = start().await;
    let request = Call::save().sign().bytes();
    let mut stream = connect(&emulator).await;
    stream.write_all(&request).await.unwrap();
    assert_eq!(read_answer(&mut stream).await.unwrap().status, 200);
    emulator.script(Step::CloseUnread);
    stream.write_all(&request).await.unwrap();
    assert_eq!(read_answer(&mut stream).await, None);
    assert_eq!((emulator.connections(), emulator.attempts(), emulator.steps_left()), (1, 1, 0));
}

#[tokio::test]
async fn a_hang_lasts_until_the_client_disconnects() {
    let emulator = start().await;
    emulator.script(Step::Hang);
    let mut stream = connect(&emulator).await;
    stream.write_all(&Call::save().sign().bytes()).await.unwrap();
    emulator.wait_for_attempts(1).await;
    assert!(timeout(Duration::from_millis(50), stream.read(&mut [0])).await.is_err());
    assert_eq!(emulator.open_connections(), 1);
    drop(stream);
    emulator.wait_for_open_connections(0).await;
    assert_eq!(emulator.saved(SAMPLE_PROJECT, CERTIFICATE), None);
}

#[tokio::test]
async fn a_gate_delays_a_request() {
    let emulator = start().await;
    let gate = Arc::new(Notify::new());
    emulator.script(Step::HangThenServe(Arc::clone(&gate)));
    let mut stream = connect(&emulator).await;
    stream.write_all(&Call::save().sign().bytes()).await.unwrap();
    emulator.wait_for_attempts(1).await;
    assert!(timeout(Duration::from_millis(50), stream.read(&mut [0])).await.is_err());
    assert_eq!(emulator.journal().len(), 1);
    assert_eq!(emulator.saved(SAMPLE_PROJECT, CERTIFICATE), None);
    gate.notify_one();
    assert_eq!(read_answer(&mut stream).await.unwrap().status, 200);
    assert_eq!(emulator.saved(SAMPLE_PROJECT, CERTIFICATE), Some(draft()));
}

#[tokio::test]
async fn dropping_the_emulator_closes_all_sockets() {
    let emulator = start().await;
    let address = emulator.address();
    let mut stream = connect(&emulator).await;
    emulator.wait_for_open_connections(1).await;
    drop(emulator);
    assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)));
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn the_observer_gets_each_request_without_content() {
    let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
    let list = Arc::clone(&seen);
    let options = Options {
        observer: Some(Arc::new(move |processed| {
            let line = json!([processed.method, processed.status, processed.rejection]);
            list.lock().unwrap().push(line);
        })),
        ..ManualClock::default().options()
    };
    let emulator = Emulator::start(options).await.unwrap();
    call(&emulator, &Call::save().sign()).await;
    call(&emulator, &Call::save()).await;
    emulator.script(Step::Close);
    assert_eq!(send(&emulator, &Call::save().sign().bytes()).await, None);
    let expected = [json!(["POST", 200, null]), json!(["POST", 401, "no Authorization"]), json!(["POST", null, null])];
    assert_eq!(*seen.lock().unwrap(), expected);
}

#[tokio::test]
async fn a_certificates_step_applies_to_signed_requests() {
    let steps = vec![(CERTIFICATE.to_owned(), Step::Reply(Reply::new(429)))];
    let emulator = Emulator::start(Options { steps, ..ManualClock::default().options() }).await.unwrap();
    for _ in 0..2 {
        assert_eq!(call(&emulator, &Call::save().sign()).await.status, 429);
    }
    assert_eq!(call(&emulator, &Call::save()).await.status, 401);
    let other = |call: &mut Call| call.target = call.target.replace(CERTIFICATE, "scs1481110651999");
    assert_eq!(call(&emulator, &Call::save().with(other).sign()).await.status, 200);
    emulator.script(Step::Reply(Reply::new(503)));
    assert_eq!(call(&emulator, &Call::save().sign()).await.status, 503);
}

#[tokio::test]
async fn a_scripted_step_of_a_certificate_is_used_once() {
    let emulator = start().await;
    emulator.script_for(CERTIFICATE, Step::Reply(Reply::new(503)));
    let other = |call: &mut Call| call.target = call.target.replace(CERTIFICATE, "scs1481110651999");
    assert_eq!(call(&emulator, &Call::save().with(other).sign()).await.status, 200);
    assert_eq!(call(&emulator, &Call::save()).await.status, 401);
    assert_eq!(call(&emulator, &Call::save().sign()).await.status, 503);
    assert_eq!(call(&emulator, &Call::save().sign()).await.status, 200);
    assert!(emulator.take_unused(CERTIFICATE).is_none());
    emulator.script_for(CERTIFICATE, Step::Close);
    assert!(matches!(emulator.take_unused(CERTIFICATE), Some(Step::Close)));
    assert_eq!(call(&emulator, &Call::save().sign()).await.status, 200);
    assert_eq!((emulator.take_journal().len(), emulator.journal().len()), (4, 0));
}

#[tokio::test]
async fn accounts_can_be_replaced() {
    let emulator = start().await;
    let account = |secret_key: &str| Account { secret_key: secret_key.to_owned(), ..Account::sample() };
    emulator.set_accounts(&[account("other")]);
    assert_eq!(call(&emulator, &Call::save().sign()).await.status, 401);
    emulator.set_accounts(&[Account::sample()]);
    assert_eq!(call(&emulator, &Call::save().sign()).await.status, 200);
}

#[tokio::test]
async fn new_connections_get_the_replaced_certificate() {
    let [first, second, scripted] = std::array::from_fn(|_| Tls::generate());
    let emulator = start_tls(&first).await;
    let mut open = handshake(&emulator, &first).await.unwrap();
    emulator.set_tls(second.clone());
    emulator.script_tls(scripted.clone());
    handshake(&emulator, &scripted).await.unwrap();
    handshake(&emulator, &second).await.unwrap();
    handshake(&emulator, &first).await.unwrap_err();
    open.write_all(&Call::save().sign().bytes()).await.unwrap();
    assert_eq!(read_answer(&mut open).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_quota_limits_the_calls_of_each_window() {
    let clock = ManualClock::default();
    let quota = Some(Quota { calls: 2, per: Duration::from_secs(10) });
    let emulator = Emulator::start(Options { quota, ..clock.options() }).await.unwrap();
    for _ in 0..2 {
        for _ in 0..2 {
            assert_eq!(call(&emulator, &Call::save().sign()).await.status, 200);
        }
        clock.advance(Duration::from_secs(9));
        let answer = call(&emulator, &Call::save().sign()).await;
        assert_eq!((answer.status, &answer.json()["error_code"]), (429, &json!("APIG.0308")));
        clock.advance(Duration::from_secs(1));
    }
}
