//! Fuzzes error responses: any body at any HTTP status becomes a small gRPC status.

#![no_main]

use std::time::SystemTime;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use scm_gateway::{grpc::status, scm::api::{RawReply, decode::decode, methods::SaveInfo}};

fuzz_target!(|input: (u16, &[u8], &[u8])| {
    let (status, retry_after, body) = input;
    let mut headers = http::HeaderMap::new();
    headers.extend(http::HeaderValue::from_bytes(retry_after).ok().map(|value| (http::header::RETRY_AFTER, value)));
    let raw = RawReply { status: 201 + status % 799, headers, body: Bytes::copy_from_slice(body) };
    let error = decode::<SaveInfo>(&raw, SystemTime::UNIX_EPOCH).expect_err("only a 200 is a success");
    assert!(status::render(error).details().len() < 1024);
});
