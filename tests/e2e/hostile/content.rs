//! A 200 whose body is no success.

use scm_emulator::{Reply, Step};
use tonic::Code;

use super::{Pair, SUCCESS, good, malformed};
use crate::harness::Seen;

fn of(body: impl Into<Vec<u8>>) -> Step {
    Step::Reply(Reply::new(200).header("Content-Type", "application/json").body(body))
}

async fn none(body: impl Into<Vec<u8>>) {
    let seen = malformed(of(body)).await;
    assert_eq!(seen.metadata["http_status"], "200");
    assert_eq!(seen.metadata.get("upstream_code"), None);
}

async fn state(body: &str) -> Seen {
    Pair::new().await.refused(of(body), 1, Code::FailedPrecondition, "CERTIFICATE_STATE").await
}

#[tokio::test]
async fn html() {
    none("<!DOCTYPE html><html><body>p1anted</body></html>").await;
}

#[tokio::test]
async fn plain_text() {
    none("success").await;
}

#[tokio::test]
async fn nothing() {
    none("").await;
}

#[tokio::test]
async fn a_byte_order_mark() {
    none(format!("\u{feff}{SUCCESS}")).await;
}

#[tokio::test]
async fn utf_16() {
    none(SUCCESS.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn invalid_utf_8_in_the_value() {
    none(*b"{\"request_info\":\"success\xff\"}").await;
}

#[tokio::test]
async fn invalid_utf_8_elsewhere() {
    none(*b"{\"request_info\":\"success\",\"new\":\"\xc3\x28\"}").await;
}

#[tokio::test]
async fn half_a_surrogate_pair() {
    none(r#"{"request_info":"\ud800"}"#).await;
}

#[tokio::test]
async fn nul_bytes() {
    none(format!("{SUCCESS}\0\0")).await;
}

#[tokio::test]
async fn another_value_behind_it() {
    none(format!("{SUCCESS}{SUCCESS}")).await;
}

#[tokio::test]
async fn a_comment() {
    none(format!("{SUCCESS} // p1anted")).await;
}

#[tokio::test]
async fn the_key_twice() {
    none(r#"{"request_info":"failed","request_info":"success"}"#).await;
}

#[tokio::test]
async fn the_key_twice_with_one_value() {
    none(r#"{"request_info":"success","request_info":"success"}"#).await;
}

/// Whatever is wrong with an error beside it, it is no success.
#[tokio::test]
async fn an_error_code_twice_beside_success() {
    none(r#"{"request_info":"success","error_code":"SCM.0010","error_code":"SCM.0010"}"#).await;
}

#[tokio::test]
async fn an_error_code_that_is_too_deep_beside_success() {
    let (open, close) = ("[".repeat(1_000), "]".repeat(1_000));
    none(format!(r#"{{"request_info":"success","error_code":{open}{close}}}"#)).await;
}

#[tokio::test]
async fn an_error_code_beside_success() {
    let seen = state(r#"{"request_info":"success","error_code":"SCM.0010"}"#).await;
    assert_eq!(seen.metadata["upstream_code"], "SCM.0010");
}

#[tokio::test]
async fn an_unknown_error_code_beside_success() {
    let seen = malformed(of(r#"{"request_info":"success","error_code":"SCM.9876"}"#)).await;
    assert_eq!(seen.metadata["upstream_code"], "SCM.9876");
}

#[tokio::test]
async fn an_error_body() {
    let seen = state(r#"{"error_code":"SCM.0010","error_msg":"p1anted"}"#).await;
    assert_eq!(seen.metadata["upstream_code"], "SCM.0010");
}

#[tokio::test]
async fn nested_100_000_deep() {
    none("[".repeat(100_000) + &"]".repeat(100_000)).await;
}

#[tokio::test]
async fn nested_100_000_deep_in_the_value() {
    none(format!(r#"{{"request_info":{}{}}}"#, r#"{"a":"#.repeat(100_000), "}".repeat(100_000))).await;
}

/// A field that is not known is passed over, however deep it is.
#[tokio::test]
async fn nested_100_000_deep_in_an_unknown_field_is_good() {
    good(of(format!(r#"{{"new":{}{},"request_info":"success"}}"#, "[".repeat(100_000), "]".repeat(100_000)))).await;
}

#[tokio::test]
async fn null() {
    none("null").await;
}

#[tokio::test]
async fn null_for_the_value() {
    none(r#"{"request_info":null}"#).await;
}

#[tokio::test]
async fn a_number_for_the_value() {
    none(r#"{"request_info":1}"#).await;
}

#[tokio::test]
async fn true_for_the_value() {
    none(r#"{"request_info":true}"#).await;
}

#[tokio::test]
async fn an_object_for_the_value() {
    none(r#"{"request_info":{"success":"success"}}"#).await;
}

#[tokio::test]
async fn a_list_for_the_value() {
    none(r#"{"request_info":["success"]}"#).await;
}

#[tokio::test]
async fn a_list_for_the_object() {
    none(r#"["success"]"#).await;
}

#[tokio::test]
async fn a_string_for_the_object() {
    none(r#""success""#).await;
}

#[tokio::test]
async fn another_value() {
    none(r#"{"request_info":"failed"}"#).await;
}

#[tokio::test]
async fn the_value_in_capitals() {
    none(r#"{"request_info":"SUCCESS"}"#).await;
}

#[tokio::test]
async fn another_key() {
    none(r#"{"requestInfo":"success"}"#).await;
}

#[tokio::test]
async fn a_small_body_in_gzip() {
    let step = Reply::json(200, "").header("Content-Encoding", "gzip").body(gzip(0));
    malformed(Step::Reply(step)).await;
}

/// Nobody asked for gzip, so nobody unpacks it.
#[tokio::test]
async fn a_gzip_bomb() {
    let bomb = gzip(600_000);
    assert!(bomb.len() < 1024 * 1024, "the packed size is none that is refused: {}", bomb.len());
    malformed(Step::Reply(Reply::json(200, "").header("Content-Encoding", "gzip").body(bomb))).await;
}

#[tokio::test]
async fn nulls_for_errors_are_none() {
    good(of(r#"{"request_info":"success","error_code":null,"error_msg":null,"error":null,"code":null}"#)).await;
}

#[tokio::test]
async fn more_fields_blanks_and_escapes_are_good() {
    good(of(" \t\r\n{\"new\":[1,2.5e3,{}],\"request\\u005finfo\":\"\\u0073uccess\"}\n")).await;
}

#[tokio::test]
async fn no_content_type_or_another_is_good() {
    good(Step::Reply(Reply::new(200).body(SUCCESS))).await;
    good(Step::Reply(Reply::new(200).header("Content-Type", "text/html; charset=gbk").body(SUCCESS))).await;
}

/// A success and, behind it, so many times 258 blanks, packed by one block with the fixed codes of RFC 1951; its
/// checksum is wrong, which shows when all of it is unpacked.
fn gzip(times: usize) -> Vec<u8> {
    let mut bits = Bits(b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec(), 0);
    bits.push(0b110, 3); // the last block, fixed codes (the one number of the format that starts with its lowest bit)
    SUCCESS.bytes().chain(*b" ").for_each(|byte| bits.push(0x30 + u32::from(byte), 8));
    for _ in 0..times {
        bits.push(0b1100_0101, 8); // 258 bytes …
        bits.push(0, 5); // … as the one before
    }
    bits.push(0, 7); // the end
    bits.0.extend([0; 8]);
    bits.0
}

/// Bytes, and how many bits of the last one are taken.
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
