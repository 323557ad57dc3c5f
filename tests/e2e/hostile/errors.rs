//! Error bodies in every format that the vendor's services and their proxies send, with the usual statuses.

use scm_emulator::{Reply, Step};
use tonic::Code;

use super::Pair;
use crate::harness::Seen;

/// Asserts the status of this response, after one attempt, or three if the response is retryable.
async fn assert_error(status: u16, body: &str, code: Code, reason: &str, upstream_code: Option<&str>) -> Seen {
    let attempts = if matches!(status, 408 | 502 | 503 | 504) { 3 } else { 1 };
    let seen = Pair::new().await.fails_with(Step::Reply(Reply::json(status, body)), attempts, code, reason).await;
    assert_eq!(seen.metadata["http_status"], status.to_string());
    assert_eq!(seen.metadata.get("upstream_code").map(String::as_str), upstream_code);
    seen
}

macro_rules! bodies {
    ($($name:ident: $status:literal $body:expr => $code:ident $reason:literal $upstream_code:expr;)+) => {
        $(
            #[tokio::test]
            async fn $name() {
                assert_error($status, $body, Code::$code, $reason, $upstream_code).await;
            }
        )+
    };
}

const HTML: &str = "<html><head><title>p1anted</title></head><body><center>nginx</center></body></html>";

bodies! {
    scm:
        400 r#"{"error_code":"SCM.0008","error_msg":"p1anted"}"#
        => NotFound "CERTIFICATE_NOT_FOUND" Some("SCM.0008");
    scm_unknown_code:
        400 r#"{"error_code":"SCM.9876","error_msg":"p1anted"}"#
        => InvalidArgument "INVALID_REQUEST" Some("SCM.9876");
    scm_permissions:
        401 r#"{"error_code":"SCM.4002","error_msg":"p1anted"}"#
        => FailedPrecondition "UPSTREAM_ACCOUNT" Some("SCM.4002");
    api_gateway:
        404 r#"{"error_msg":"p1anted","error_code":"APIG.0101","request_id":"acbc548ac6f2a0dbdb9e3518a7c0ff84"}"#
        => Internal "UPSTREAM_CONFIGURATION" Some("APIG.0101");
    older_api_gateway:
        404 r#"{"error_msg":"p1anted","error_code":"APIGW.0101","request_id":"acbc548ac6f2a0dbdb9e3518a7c0ff84"}"#
        => Internal "UPSTREAM_CONFIGURATION" Some("APIGW.0101");
    api_gateway_signature:
        401 r#"{"error_msg":"verify aksk signature fail, p1anted","error_code":"APIG.0301","request_id":"1"}"#
        => Internal "UPSTREAM_CREDENTIALS" Some("APIG.0301");
    older_api_gateway_signature:
        401 r#"{"error_msg":"p1anted","error_code":"APIGW.0301","request_id":"1"}"#
        => Internal "UPSTREAM_CREDENTIALS" Some("APIGW.0301");
    api_gateway_backend_unavailable:
        502 r#"{"error_msg":"p1anted","error_code":"APIG.0201","request_id":"1"}"#
        => Unavailable "UPSTREAM_UNAVAILABLE" Some("APIG.0201");
    iam_nested_number:
        401 r#"{"error":{"code":401,"message":"p1anted","title":"Unauthorized"}}"#
        => Internal "UPSTREAM_CREDENTIALS" Some("401");
    iam_nested_number_permissions:
        403 r#"{"error":{"code":403,"message":"p1anted","title":"Forbidden"}}"#
        => FailedPrecondition "UPSTREAM_ACCOUNT" Some("403");
    iam_nested_without_code:
        401 r#"{"error":{"message":"p1anted","title":"Unauthorized"}}"#
        => Internal "UPSTREAM_CREDENTIALS" None;
    iam_nested_null_code:
        401 r#"{"error":{"code":null,"message":"p1anted","title":"Unauthorized"}}"#
        => Internal "UPSTREAM_CREDENTIALS" None;
    iam_flat:
        401 r#"{"error_msg":"p1anted","error_code":"IAM.0011"}"#
        => Internal "UPSTREAM_CREDENTIALS" Some("IAM.0011");
    iam_v5:
        403 r#"{"error_code":"PAP5.0001","error_msg":"p1anted","encoded_authorization_message":"p1anted"}"#
        => FailedPrecondition "UPSTREAM_ACCOUNT" Some("PAP5.0001");
    camel_case:
        400 r#"{"errorCode":"SCM.0010","errorMsg":"p1anted"}"#
        => FailedPrecondition "CERTIFICATE_STATE" Some("SCM.0010");
    code_and_message:
        400 r#"{"code":"SCM.0010","message":"p1anted"}"#
        => FailedPrecondition "CERTIFICATE_STATE" Some("SCM.0010");
    numeric_code_and_message:
        500 r#"{"code":500,"message":"p1anted"}"#
        => Internal "UPSTREAM_ERROR" Some("500");
    html_bad_gateway:
        502 HTML => Unavailable "UPSTREAM_UNAVAILABLE" None;
    html_gateway_timeout:
        504 HTML => DeadlineExceeded "UPSTREAM_TIMEOUT" None;
    html_forbidden:
        403 HTML => FailedPrecondition "UPSTREAM_ACCOUNT" None;
    html_too_large:
        413 HTML => InvalidArgument "INVALID_REQUEST" None;
    plain_text_unavailable:
        503 "p1anted: upstream connect error or disconnect/reset before headers"
        => Unavailable "UPSTREAM_UNAVAILABLE" None;
    plain_text_error:
        500 "p1anted" => Internal "UPSTREAM_ERROR" None;
    empty_timeout:
        408 "" => Unavailable "UPSTREAM_UNAVAILABLE" None;
    empty_unavailable:
        503 "" => Unavailable "UPSTREAM_UNAVAILABLE" None;
    empty_bad_request:
        400 "" => InvalidArgument "INVALID_REQUEST" None;
    empty_not_found:
        404 "" => NotFound "CERTIFICATE_NOT_FOUND" None;
    empty_unauthorized:
        401 "" => Internal "UPSTREAM_CREDENTIALS" None;
    null_fields:
        400 r#"{"error_code":null,"error_msg":null,"request_id":null}"#
        => InvalidArgument "INVALID_REQUEST" None;
    invalid_code:
        400 r#"{"error_code":"p1anted 13212345678 & more","error_msg":"p1anted"}"#
        => InvalidArgument "INVALID_REQUEST" None;
    code_of_100_kib:
        500 &format!(r#"{{"error_code":"{}"}}"#, "p1anted".repeat(15_000))
        => Internal "UPSTREAM_ERROR" None;
    duplicate_key:
        400 r#"{"error_code":"SCM.0008","error_code":"SCM.0010"}"#
        => InvalidArgument "INVALID_REQUEST" None;
    success_body:
        500 super::SUCCESS => Internal "UPSTREAM_ERROR" None;
    list:
        400 r#"["SCM.0010","p1anted",null,null,null]"#
        => InvalidArgument "INVALID_REQUEST" None;
}

/// The id is read from the header `X-Request-Id`, from the body, or from IAM's header.
#[tokio::test]
async fn request_id_of_header_or_body() {
    let body = r#"{"error_code":"APIG.0101","request_id":"of-the-body"}"#;
    for (reply, id) in [
        (Reply::json(404, body), Some("of-the-body")),
        (Reply::json(404, body).header("x-request-ID", "of-the-header"), Some("of-the-header")),
        (Reply::json(404, "{}").header("X-IAM-Trace-Id", "of-iam"), Some("of-iam")),
        (Reply::json(404, body).header("X-Request-Id", "p1anted <no id>"), Some("of-the-body")),
        (Reply::json(404, r#"{"error_code":"APIG.0101","request_id":"p1anted <no id>"}"#), None),
    ] {
        let pair = Pair::new().await;
        let status = pair.call(Step::Reply(reply), 1, None).await.unwrap_err();
        let seen = crate::harness::seen(&status);
        assert_eq!(seen.metadata.get("upstream_request_id").map(String::as_str), id, "{status:?}");
        assert_eq!(status.metadata().get("x-upstream-request-id").map(|id| id.to_str().unwrap()), id);
        assert!(!format!("{status:?}").contains("p1anted"), "{status:?}");
        pair.next_is_good().await;
    }
}
