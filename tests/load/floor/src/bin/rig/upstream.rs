//! A minimal, fast upstream: handwritten HTTP/1.1 that answers signed calls as SCM, always in the same way. `/v1/traces`
//! accepts and counts spans as a collector does, and answers after a delay. Other paths under `/v1/` accept any content.
//! `/` returns the counts.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use prost::Message;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::spawn_blocking,
};

static CALLS: AtomicUsize = AtomicUsize::new(0);
static SPANS: AtomicUsize = AtomicUsize::new(0);

const SAVED: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Request-Id: 7f0e4b1cd2a94e0f8f3a6b5c4d3e2f10\r\n\
    Content-Length: 26\r\n\r\n{\"request_info\":\"success\"}";
/// The path of the list of certificates, and the start of the path of one.
const CERTIFICATES: &str = "/v3/scm/certificates";
/// A full page of certificates, 23 KB of JSON: the vendor's example 50 times.
static PAGE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let example = example("ListCertificates", "full page");
    success(&json!({ "certificates": vec![&example["certificates"][0]; 50], "total_count": 50 }).to_string())
});
/// The vendor's example of a certificate, with a status that is not final.
static CERTIFICATE: LazyLock<Value> = LazyLock::new(|| {
    let mut certificate = example("ShowCertificate", "issued");
    certificate["status"] = "CHECKING_DOMAIN".into();
    certificate
});
const ACCEPTED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
const UNAUTHORIZED: &[u8] = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";

/// The vendor's algorithm, and AWS's, which Envoy supports and which costs the same.
const ALGORITHMS: [&[u8]; 2] = [b"SDK-HMAC-SHA256 ", b"AWS4-HMAC-SHA256 "];

/// Serves until the process ends. The delay is that of the collector in milliseconds.
pub async fn serve(delay: u64) -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(connection(stream, Duration::from_millis(delay)));
    }
}

/// Answers requests until the peer disconnects or sends an invalid request.
async fn connection(mut stream: TcpStream, delay: Duration) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(64 * 1024);
    loop {
        while let Some((answer, length)) = request(&buffer).map_err(std::io::Error::other)? {
            if answer == ACCEPTED && !delay.is_zero() {
                // tokio's timer would wait for up to a millisecond more
                spawn_blocking(move || thread::sleep(delay)).await?;
            }
            stream.write_all(&answer).await?;
            buffer.drain(..length);
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// Returns the response to the request at the start of `bytes` and the request's length, or `None` if it is incomplete.
fn request(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, httparse::Error> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(bytes)? else { return Ok(None) };
    let header = |name: &str| request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    let length = header("content-length").and_then(|header| str::from_utf8(header.value).ok()?.parse::<usize>().ok());
    let rest = &bytes[head..];
    let complete = match header("transfer-encoding") {
        Some(_) => chunks(rest),
        None => rest.get(..length.unwrap_or(0)).map(|body| (body.to_vec(), body.len())),
    };
    let Some((body, length)) = complete else { return Ok(None) };
    let is_signed =
        header("authorization").is_some_and(|header| ALGORITHMS.iter().any(|a| header.value.starts_with(a)));
    let answer = match (request.method, request.path) {
        (_, Some("/")) => counts(),
        (_, Some("/v1/traces")) => {
            SPANS.fetch_add(spans(body), Relaxed);
            ACCEPTED.to_vec()
        }
        (_, Some(path)) if path.starts_with("/v1/") => ACCEPTED.to_vec(),
        (method, Some(path)) if is_signed => {
            CALLS.fetch_add(1, Relaxed);
            match path.strip_prefix(CERTIFICATES) {
                Some("?limit=50") => PAGE.clone(),
                Some(id) if method == Some("GET") => certificate(id.trim_start_matches('/')),
                _ => SAVED.to_vec(),
            }
        }
        _ => UNAUTHORIZED.to_vec(),
    };
    Ok(Some((answer, head + length)))
}

/// Decodes a chunked body without trailers. Returns it with its encoded length, or `None` if it is incomplete.
fn chunks(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let Ok(httparse::Status::Complete((line, size))) = httparse::parse_chunk_size(&bytes[at..]) else {
            return None;
        };
        let size = usize::try_from(size).ok()?;
        body.extend(bytes.get(at + line..at + line + size)?);
        at += line + size + 2;
        if at > bytes.len() {
            return None;
        }
        if size == 0 {
            return Some((body, at));
        }
    }
}

/// OTLP's `ExportTraceServiceRequest` down to its spans, which are not decoded because SCM's responses wait on the same
/// thread.
#[derive(Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Message)]
struct ResourceSpans {
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Message)]
struct ScopeSpans {
    #[prost(bytes = "bytes", repeated, tag = "2")]
    spans: Vec<Bytes>,
}

fn spans(body: Vec<u8>) -> usize {
    let export = Export::decode(Bytes::from(body)).expect("the body is an OTLP trace export");
    export.resource_spans.iter().flat_map(|resource| &resource.scope_spans).map(|scope| scope.spans.len()).sum()
}

/// Returns the body of one of the vendor's examples.
fn example(operation: &str, name: &str) -> Value {
    let file: Value = serde_json::from_str(include_str!("../../../../../replies.json")).expect("JSON");
    let mut replies = file["replies"].as_array().into_iter().flatten();
    let reply = replies.find(|reply| reply["operation"] == operation && reply["name"] == name);
    let body = reply.and_then(|reply| reply["body"].as_str()).expect("the example is there");
    serde_json::from_str(body).expect("JSON")
}

/// Returns a certificate whose state does not change.
fn certificate(id: &str) -> Vec<u8> {
    let mut certificate = CERTIFICATE.clone();
    certificate["id"] = id.into();
    success(&certificate.to_string())
}

fn counts() -> Vec<u8> {
    success(&format!("calls {}\nspans {}\n", CALLS.load(Relaxed), SPANS.load(Relaxed)))
}

fn success(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}
