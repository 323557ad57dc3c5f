//! Responses with status 200 whose body is not a success.

use scm_emulator::{Reply, Step};
use tonic::Code;

use super::{Pair, SUCCESS, malformed, succeeds};
use crate::harness::Seen;

fn reply(body: impl Into<Vec<u8>>) -> Step {
    Step::Reply(Reply::new(200).header("Content-Type", "application/json").body(body))
}

async fn not_a_success(body: impl Into<Vec<u8>>) {
    let seen = malformed(reply(body)).await;
    assert_eq!(seen.metadata["http_status"], "200");
    assert_eq!(seen.metadata.get("upstream_code"), None);
}

async fn state(body: &str) -> Seen {
    Pair::new().await.fails_with(reply(body), 1, Code::FailedPrecondition, "CERTIFICATE_STATE").await
}

#[tokio::test]
async fn html() {
    not_a_success("<!DOCTYPE html><html><body>p1anted</body></html>").await;
}

#[tokio::test]
async fn plain_text() {
    not_a_success("success").await;
}

#[tokio::test]
async fn empty_body() {
    not_a_success("").await;
}

#[tokio::test]
async fn byte_order_mark() {
    not_a_success(format!("\u{feff}{SUCCESS}")).await;
}

#[tokio::test]
async fn utf_16() {
    not_a_success(SUCCESS.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn invalid_utf_8_in_the_value() {
    not_a_success(*b"{\"request_info\":\"success\xff\"}").await;
}

#[tokio::test]
async fn invalid_utf_8_in_an_unknown_field() {
    not_a_success(*b"{\"request_info\":\"success\",\"new\":\"\xc3\x28\"}").await;
}

#[tokio::test]
async fn half_a_surrogate_pair() {
    not_a_success(r#"{"request_info":"\ud800"}"#).await;
}

#[tokio::test]
async fn nul_bytes() {
    not_a_success(format!("{SUCCESS}\0\0")).await;
}

#[tokio::test]
async fn trailing_value() {
    not_a_success(format!("{SUCCESS}{SUCCESS}")).await;
}

#[tokio::test]
async fn comment() {
    not_a_success(format!("{SUCCESS} // p1anted")).await;
}

#[tokio::test]
async fn duplicate_key() {
    not_a_success(r#"{"request_info":"failed","request_info":"success"}"#).await;
}

#[tokio::test]
async fn duplicate_key_with_equal_values() {
    not_a_success(r#"{"request_info":"success","request_info":"success"}"#).await;
}

/// A body with an invalid error code is not a success either.
#[tokio::test]
async fn success_with_duplicate_error_code() {
    not_a_success(r#"{"request_info":"success","error_code":"SCM.0010","error_code":"SCM.0010"}"#).await;
}

#[tokio::test]
async fn success_with_deeply_nested_error_code() {
    let open = "[".repeat(1_000);
    let close = "]".repeat(1_000);
    not_a_success(format!(r#"{{"request_info":"success","error_code":{open}{close}}}"#)).await;
}

#[tokio::test]
async fn success_with_error_code() {
    let seen = state(r#"{"request_info":"success","error_code":"SCM.0010"}"#).await;
    assert_eq!(seen.metadata["upstream_code"], "SCM.0010");
}

#[tokio::test]
async fn success_with_unknown_error_code() {
    let seen = malformed(reply(r#"{"request_info":"success","error_code":"SCM.9876"}"#)).await;
    assert_eq!(seen.metadata["upstream_code"], "SCM.9876");
}

#[tokio::test]
async fn error_body() {
    let seen = state(r#"{"error_code":"SCM.0010","error_msg":"p1anted"}"#).await;
    assert_eq!(seen.metadata["upstream_code"], "SCM.0010");
}

#[tokio::test]
async fn nested_100_000_deep() {
    not_a_success("[".repeat(100_000) + &"]".repeat(100_000)).await;
}

#[tokio::test]
async fn nested_100_000_deep_in_the_value() {
    not_a_success(format!(r#"{{"request_info":{}{}}}"#, r#"{"a":"#.repeat(100_000), "}".repeat(100_000))).await;
}

/// Unknown fields are skipped at any depth.
#[tokio::test]
async fn nested_100_000_deep_in_an_unknown_field_succeeds() {
    succeeds(reply(format!(r#"{{"new":{}{},"request_info":"success"}}"#, "[".repeat(100_000), "]".repeat(100_000))))
        .await;
}

#[tokio::test]
async fn null() {
    not_a_success("null").await;
}

#[tokio::test]
async fn null_value() {
    not_a_success(r#"{"request_info":null}"#).await;
}

#[tokio::test]
async fn number_value() {
    not_a_success(r#"{"request_info":1}"#).await;
}

#[tokio::test]
async fn true_value() {
    not_a_success(r#"{"request_info":true}"#).await;
}

#[tokio::test]
async fn object_value() {
    not_a_success(r#"{"request_info":{"success":"success"}}"#).await;
}

#[tokio::test]
async fn list_value() {
    not_a_success(r#"{"request_info":["success"]}"#).await;
}

#[tokio::test]
async fn list_instead_of_the_object() {
    not_a_success(r#"["success"]"#).await;
}

#[tokio::test]
async fn string_instead_of_the_object() {
    not_a_success(r#""success""#).await;
}

#[tokio::test]
async fn other_value() {
    not_a_success(r#"{"request_info":"failed"}"#).await;
}

#[tokio::test]
async fn other_key() {
    not_a_success(r#"{"requestInfo":"success"}"#).await;
}

#[tokio::test]
async fn small_body_in_gzip() {
    let step = Reply::json(200, "").header("Content-Encoding", "gzip").body(gzip(0));
    malformed(Step::Reply(step)).await;
}

/// The gateway does not accept gzip, so it decompresses nothing.
#[tokio::test]
async fn gzip_bomb() {
    let bomb = gzip(600_000);
    assert!(bomb.len() < 1024 * 1024, "the compressed size is within the limit: {}", bomb.len());
    malformed(Step::Reply(Reply::json(200, "").header("Content-Encoding", "gzip").body(bomb))).await;
}

#[tokio::test]
async fn null_error_fields_succeed() {
    succeeds(reply(r#"{"request_info":"success","error_code":null,"error_msg":null,"error":null,"code":null}"#)).await;
}

#[tokio::test]
async fn unknown_fields_whitespace_and_escapes_succeed() {
    succeeds(reply(" \t\r\n{\"new\":[1,2.5e3,{}],\"request\\u005finfo\":\"\\u0073uccess\"}\n")).await;
}

#[tokio::test]
async fn missing_or_other_content_type_succeeds() {
    succeeds(Step::Reply(Reply::new(200).body(SUCCESS))).await;
    succeeds(Step::Reply(Reply::new(200).header("Content-Type", "text/html; charset=gbk").body(SUCCESS))).await;
}

/// Returns a success and `times` times 258 spaces, compressed in one block with the fixed codes of RFC 1951. The
/// checksum is wrong, which shows only after complete decompression.
fn gzip(times: usize) -> Vec<u8> {
    let mut bits = Bits(b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec(), 0);
    bits.push(0b110, 3); // the last block, fixed codes (the only code of the format that starts with its lowest bit)
    SUCCESS.bytes().chain(*b" ").for_each(|byte| bits.push(0x30 + u32::from(byte), 8));
    for _ in 0..times {
        bits.push(0b1100_0101, 8); // 258 bytes …
        bits.push(0, 5); // … equal to the byte before
    }
    bits.push(0, 7); // the end
    bits.0.extend([0; 8]);
    bits.0
}

/// A bit writer: the bytes, and the number of bits used in the last byte.
struct Bits(Vec<u8>, u32);

impl Bits {
    fn push(&mut self, code: u32, length: u32) {
        for bit in (0..length).rev().map(|at| code >> at & 1) {
            if self.1 == 0 {
                self.0.push(0);
            }
            *self.0.last_mut().unwrap() |= u8::from(bit == 1) << self.1;
            self.1 = (self.1 + 1) % 8;
        }
    }
}
