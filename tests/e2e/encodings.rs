//! Compressed requests: gzip is accepted, and the decompressed size is limited.

use std::io::Write as _;

use flate2::{
    Compression,
    write::{DeflateEncoder, GzEncoder},
};
use http::HeaderMap;
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use prost::Message as _;
use scm_gateway::proto::SaveInfoRequest;
use tonic::{Code, codec::CompressionEncoding};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_request::MessageRequest};

use crate::harness::{Gateway, client, emulator, framed, process::Process, sample};

const SAVE: &str = "huaweicloud.scm.v1.CertificateService/SaveInfo";
const HEALTH: &str = "grpc.health.v1.Health/Check";
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

const PLAIN: u8 = 0;
const COMPRESSED: u8 = 1;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Returns 256 KiB of gzip that decompress to as many zeros as possible: copies of one compressed mebibyte of zeros.
fn bomb() -> Vec<u8> {
    let mut mebibyte = DeflateEncoder::new(Vec::new(), Compression::best());
    mebibyte.write_all(&vec![0; 1024 * 1024]).unwrap();
    mebibyte.flush().unwrap();
    let block = mebibyte.get_ref();
    let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    [&head[..], &block.repeat((256 * 1024 - head.len()) / block.len())].concat()
}

/// Sends a body and returns the headers and trailers of the response.
async fn post(address: &str, path: &str, encoding: Option<&str>, body: Vec<u8>) -> HeaderMap {
    exchange(address, path, encoding, body).await.0
}

/// Sends a body and returns the headers and trailers of the response, and its body.
async fn exchange(address: &str, path: &str, encoding: Option<&str>, body: Vec<u8>) -> (HeaderMap, bytes::Bytes) {
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Full<bytes::Bytes>>();
    let request = http::Request::post(format!("http://{address}/{path}"))
        .header("content-type", "application/grpc")
        .header("grpc-accept-encoding", "gzip")
        .header("te", "trailers");
    let request = encoding.into_iter().fold(request, |request, encoding| request.header("grpc-encoding", encoding));
    let response = client.request(request.body(Full::from(body)).unwrap()).await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    let mut headers = response.headers().clone();
    let body = response.into_body().collect().await.unwrap();
    headers.extend(body.trailers().cloned().unwrap_or_default());
    (headers, body.to_bytes())
}

fn code(headers: &HeaderMap) -> Code {
    Code::from_bytes(headers["grpc-status"].as_bytes())
}

#[tokio::test]
async fn compressed_request_gets_an_uncompressed_response() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    gateway.save(sample()).await.unwrap();
    let compressing = gateway.client.clone().send_compressed(CompressionEncoding::Gzip);
    compressing.accept_compressed(CompressionEncoding::Gzip).save_info(sample()).await.unwrap();
    let journal = emulator.journal();
    assert_eq!(journal[0].body, journal[1].body);

    let message = sample().encode_to_vec();
    for (encoding, body) in [
        (Some("gzip"), framed(COMPRESSED, &gzip(&message))),
        (Some("gzip"), framed(PLAIN, &message)),
        (Some("identity"), framed(PLAIN, &message)),
        (None, framed(PLAIN, &message)),
    ] {
        let response = post(&gateway.addresses.server, SAVE, encoding, body).await;
        assert_eq!(code(&response), Code::Ok, "{encoding:?}");
        assert!(!response.contains_key("grpc-encoding"), "{response:?}");
    }
    assert_eq!(emulator.attempts(), 6);
}

/// RFC 1952 2.2: "A gzip file consists of a series of members".
#[tokio::test]
async fn all_members_of_a_message_are_read() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let message = sample().encode_to_vec();
    let empty = gzip(b"").repeat(5_000);
    for members in [
        gzip(&message),
        [gzip(&message[..message.len() / 2]), gzip(&message[message.len() / 2..])].concat(),
        message.iter().flat_map(|byte| gzip(&[*byte])).collect(),
        [&empty[..], &gzip(&message), &empty].concat(),
    ] {
        let response = post(&gateway.addresses.server, SAVE, Some("gzip"), framed(COMPRESSED, &members)).await;
        assert_eq!(code(&response), Code::Ok, "{response:?}");
    }
    let journal = emulator.journal();
    assert_eq!(journal.len(), 4);
    assert!(journal.iter().all(|request| request.body == journal[0].body));

    let request = HealthCheckRequest { service: "unknown".to_owned() }.encode_to_vec();
    let members = [gzip(&request[..2]), gzip(&request[2..])].concat();
    let response = post(&gateway.addresses.server, HEALTH, Some("gzip"), framed(COMPRESSED, &members)).await;
    assert_eq!(code(&response), Code::NotFound, "{response:?}");

    let symbol = MessageRequest::FileContainingSymbol("grpc.health.v1.Health".to_owned());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(symbol) }.encode_to_vec();
    let members = [gzip(&request[..request.len() - 7]), gzip(&request[request.len() - 7..])].concat();
    // A stream may have several messages.
    let body = [framed(COMPRESSED, &members), framed(PLAIN, &request)].concat();
    let (headers, replies) = exchange(&gateway.addresses.server, REFLECTION, Some("gzip"), body).await;
    assert_eq!(code(&headers), Code::Ok);
    let (first, second) = replies.split_at(replies.len() / 2);
    assert!(first.len() > 500 && first == second, "{replies:?}");
}

#[tokio::test]
async fn unknown_encoding_is_unimplemented() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    for (path, message) in [(SAVE, sample().encode_to_vec()), (HEALTH, Vec::new()), (REFLECTION, Vec::new())] {
        for encoding in ["deflate", "zstd", "snappy", "gzip, gzip", ""] {
            let response = post(&gateway.addresses.server, path, Some(encoding), framed(COMPRESSED, &message)).await;
            assert_eq!(code(&response), Code::Unimplemented, "{path} {encoding:?}");
            let mut supported: Vec<_> = response["grpc-accept-encoding"].to_str().unwrap().split(',').collect();
            supported.sort_unstable();
            assert_eq!(supported, ["gzip", "identity"]);
        }
    }
    assert_eq!(emulator.attempts(), 0);
}

/// <https://github.com/grpc/grpc/blob/master/doc/compression.md>: "MUST fail with INTERNAL status".
#[tokio::test]
async fn invalid_compression_is_internal() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let compressed = gzip(&sample().encode_to_vec());
    let mut corrupt = compressed.clone();
    corrupt[20..40].fill(0xff);
    let mut wrong_checksum = compressed.clone();
    let checksum = wrong_checksum.len() - 8;
    wrong_checksum[checksum] ^= 1;
    for (case, encoding, body) in [
        ("no encoding", None, framed(COMPRESSED, &compressed)),
        ("identity", Some("identity"), framed(COMPRESSED, &compressed)),
        ("unknown flag", Some("gzip"), framed(2, &compressed)),
        ("not gzip", Some("gzip"), framed(COMPRESSED, &sample().encode_to_vec())),
        ("empty", Some("gzip"), framed(COMPRESSED, b"")),
        ("corrupt", Some("gzip"), framed(COMPRESSED, &corrupt)),
        ("wrong checksum", Some("gzip"), framed(COMPRESSED, &wrong_checksum)),
        ("truncated", Some("gzip"), framed(COMPRESSED, &compressed[..compressed.len() / 2])),
        ("bytes after the last member", Some("gzip"), framed(COMPRESSED, &[&compressed[..], b"more"].concat())),
        ("zeros after the last member", Some("gzip"), framed(COMPRESSED, &[&compressed[..], &[0; 32]].concat())),
        ("second member corrupt", Some("gzip"), framed(COMPRESSED, &[&compressed[..], &corrupt].concat())),
        ("invalid protobuf", Some("gzip"), framed(COMPRESSED, &gzip(b"\xff\xff\xff"))),
    ] {
        let response = post(&gateway.addresses.server, SAVE, encoding, body).await;
        assert_eq!(code(&response), Code::Internal, "{case}: {response:?}");
    }
    let body = framed(COMPRESSED, &[&gzip(b"")[..], b"more"].concat());
    let response = post(&gateway.addresses.server, HEALTH, Some("gzip"), body).await;
    assert_eq!(code(&response), Code::Internal, "health: {response:?}");
    assert_eq!(emulator.attempts(), 0);
    gateway.save(sample()).await.unwrap();
}

#[tokio::test]
async fn size_limit_applies_to_the_decompressed_message() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__MAX_MESSAGE_SIZE", "1KiB")]).await;
    let sized = |size: usize| {
        let request = |name| SaveInfoRequest { cert_id: name, ..sample() };
        let rest = request("x".repeat(200)).encoded_len() - 200;
        let message = request("x".repeat(size - rest)).encode_to_vec();
        assert_eq!(message.len(), size);
        framed(COMPRESSED, &gzip(&message))
    };
    let response = post(&gateway.addresses.server, SAVE, Some("gzip"), sized(1024)).await;
    assert_eq!(code(&response), Code::InvalidArgument, "the message was read: {response:?}");
    let response = post(&gateway.addresses.server, SAVE, Some("gzip"), sized(1025)).await;
    assert_eq!(code(&response), Code::ResourceExhausted);
    let members = framed(COMPRESSED, &[gzip(&[0; 1000]), gzip(&[0; 1000])].concat());
    let response = post(&gateway.addresses.server, SAVE, Some("gzip"), members).await;
    assert_eq!(code(&response), Code::ResourceExhausted);
    assert!(response["grpc-message"].to_str().unwrap().contains("max_message_size"), "{response:?}");
    let check = HealthCheckRequest { service: "x".repeat(4097) }.encode_to_vec();
    for body in [framed(COMPRESSED, &gzip(&check)), framed(PLAIN, &check)] {
        let response = post(&gateway.addresses.server, HEALTH, Some("gzip"), body).await;
        assert_eq!(code(&response), Code::ResourceExhausted, "health has a limit too: {response:?}");
    }
    assert_eq!(emulator.attempts(), 0);
}

#[tokio::test]
async fn length_over_the_limit_is_rejected_at_once() {
    use futures_util::{StreamExt as _, stream};
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__UPSTREAM__TIMEOUT", "5m")]).await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    for flag in [PLAIN, COMPRESSED] {
        for length in [256 * 1024 + 1, u32::MAX] {
            let prefix = [&[flag][..], &length.to_be_bytes()].concat();
            let start = stream::iter([Ok::<_, std::io::Error>(Frame::data(bytes::Bytes::from(prefix)))]);
            let body = StreamBody::new(Box::pin(start.chain(stream::pending())));
            let request = http::Request::post(format!("http://{}/{SAVE}", gateway.addresses.server))
                .header("content-type", "application/grpc")
                .header("grpc-encoding", "gzip");
            let response = client.request(request.body(body).unwrap()).await.unwrap();
            assert_eq!(code(response.headers()), Code::ResourceExhausted, "{flag} {length}");
        }
    }
    assert_eq!(emulator.attempts(), 0);
}

#[tokio::test]
async fn health_accepts_gzip() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let mut health = HealthClient::new(gateway.channel().await).send_compressed(CompressionEncoding::Gzip);
    health.check(HealthCheckRequest::default()).await.unwrap();
}

#[tokio::test]
async fn gzip_bomb_needs_no_more_memory_than_a_message() {
    let bomb = bomb();
    assert!(bomb.len() > 255 * 1024, "{}", bomb.len());
    let emulator = emulator().await;
    let process = Process::start(&emulator.endpoint(), &[]).await;
    for _ in 0..10 {
        let plain = framed(PLAIN, &vec![0xff; 256 * 1024]);
        assert_eq!(code(&post(&process.address, SAVE, None, plain).await), Code::Internal);
    }
    let before = process.peak_memory();
    for _ in 0..10 {
        let response = post(&process.address, SAVE, Some("gzip"), framed(COMPRESSED, &bomb)).await;
        assert_eq!(code(&response), Code::ResourceExhausted, "{response:?}");
    }
    let grown = process.peak_memory() - before;
    assert!(grown < 8 * 1024, "{grown} KiB");
    client(&process.address).await.save_info(sample()).await.unwrap();
    assert_eq!(emulator.attempts(), 1);
}
