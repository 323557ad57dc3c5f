//! Error bodies of every shape that the vendor's services and what stands before them write, at their usual statuses.

use scm_emulator::{Reply, Step};
use tonic::Code;

use super::Pair;
use crate::harness::Seen;

/// One attempt but for what is repeated.
async fn answered(status: u16, body: &str, code: Code, reason: &str, upstream_code: Option<&str>) -> Seen {
    let attempts = if matches!(status, 408 | 502 | 503 | 504) { 3 } else { 1 };
    let seen = Pair::new().await.refused(Step::Reply(Reply::json(status, body)), attempts, code, reason).await;
    assert_eq!(seen.metadata["http_status"], status.to_string());
    assert_eq!(seen.metadata.get("upstream_code").map(String::as_str), upstream_code);
    seen
}

macro_rules! bodies {
    ($($name:ident: $status:literal $body:expr => $code:ident $reason:literal $upstream_code:expr;)+) => {
        $(
            #[tokio::test]
            async fn $name() {
                answered($status, $body, Code::$code, $reason, $upstream_code).await;
            }
        )+
    };
}

const HTML: &str = "<html><head><title>p1anted</title></head><body><center>nginx</center></body></html>";

bodies! {
    of_scm:
        400 r#"{"error_code":"SCM.0008","error_msg":"p1anted"}"#
        => NotFound "CERTIFICATE_NOT_FOUND" Some("SCM.0008");
    of_scm_with_a_code_not_known:
        400 r#"{"error_code":"SCM.9876","error_msg":"p1anted"}"#
        => InvalidArgument "INVALID_REQUEST" Some("SCM.9876");
    of_scm_about_permissions:
        401 r#"{"error_code":"SCM.4002","error_msg":"p1anted"}"#
        => FailedPrecondition "UPSTREAM_ACCOUNT" Some("SCM.4002");
    of_the_api_gateway:
        404 r#"{"error_msg":"p1anted","error_code":"APIG.0101","request_id":"acbc548ac6f2a0dbdb9e3518a7c0ff84"}"#
        => Internal "UPSTREAM_CONFIGURATION" Some("APIG.0101");
    of_an_older_api_gateway:
        404 r#"{"error_msg":"p1anted","error_code":"APIGW.0101","request_id":"acbc548ac6f2a0dbdb9e3518a7c0ff84"}"#
        => Internal "UPSTREAM_CONFIGURATION" Some("APIGW.0101");
    of_the_api_gateway_about_a_signature:
        401 r#"{"error_msg":"verify aksk signature fail, p1anted","error_code":"APIG.0301","request_id":"1"}"#
        => Internal "UPSTREAM_CREDENTIALS" Some("APIG.0301");
    of_an_older_api_gateway_about_a_signature:
        401 r#"{"error_msg":"p1anted","error_code":"APIGW.0301","request_id":"1"}"#
        => Internal "UPSTREAM_CREDENTIALS" Some("APIGW.0301");
    of_the_api_gateway_whose_backend_is_away:
        502 r#"{"error_msg":"p1anted","error_code":"APIG.0201","request_id":"1"}"#
        => Unavailable "UPSTREAM_UNAVAILABLE" Some("APIG.0201");
    of_iam_nested_with_a_number:
        401 r#"{"error":{"code":401,"message":"p1anted","title":"Unauthorized"}}"#
        => Internal "UPSTREAM_CREDENTIALS" Some("401");
    of_iam_nested_with_a_number_about_permissions:
        403 r#"{"error":{"code":403,"message":"p1anted","title":"Forbidden"}}"#
        => FailedPrecondition "UPSTREAM_ACCOUNT" Some("403");
    of_iam_nested_without_a_code:
        401 r#"{"error":{"message":"p1anted","title":"Unauthorized"}}"#
        => Internal "UPSTREAM_CREDENTIALS" None;
    of_iam_nested_with_null_for_the_code:
        401 r#"{"error":{"code":null,"message":"p1anted","title":"Unauthorized"}}"#
        => Internal "UPSTREAM_CREDENTIALS" None;
    of_iam_flat:
        401 r#"{"error_msg":"p1anted","error_code":"IAM.0011"}"#
        => Internal "UPSTREAM_CREDENTIALS" Some("IAM.0011");
    of_iam_v5:
        403 r#"{"error_code":"PAP5.0001","error_msg":"p1anted","encoded_authorization_message":"p1anted"}"#
        => FailedPrecondition "UPSTREAM_ACCOUNT" Some("PAP5.0001");
    in_camel_case:
        400 r#"{"errorCode":"SCM.0010","errorMsg":"p1anted"}"#
        => FailedPrecondition "CERTIFICATE_STATE" Some("SCM.0010");
    of_code_and_message:
        400 r#"{"code":"SCM.0010","message":"p1anted"}"#
        => FailedPrecondition "CERTIFICATE_STATE" Some("SCM.0010");
    of_a_code_in_digits_and_message:
        500 r#"{"code":500,"message":"p1anted"}"#
        => Internal "UPSTREAM_ERROR" Some("500");
    in_html_of_a_bad_gateway:
        502 HTML => Unavailable "UPSTREAM_UNAVAILABLE" None;
    in_html_of_a_timeout:
        504 HTML => DeadlineExceeded "UPSTREAM_TIMEOUT" None;
    in_html_of_a_firewall:
        403 HTML => FailedPrecondition "UPSTREAM_ACCOUNT" None;
    in_html_about_the_length:
        413 HTML => InvalidArgument "INVALID_REQUEST" None;
    in_plain_text:
        503 "p1anted: upstream connect error or disconnect/reset before headers"
        => Unavailable "UPSTREAM_UNAVAILABLE" None;
    in_plain_text_of_an_error:
        500 "p1anted" => Internal "UPSTREAM_ERROR" None;
    empty_of_a_timeout:
        408 "" => Unavailable "UPSTREAM_UNAVAILABLE" None;
    empty_of_an_outage:
        503 "" => Unavailable "UPSTREAM_UNAVAILABLE" None;
    empty_of_a_bad_request:
        400 "" => InvalidArgument "INVALID_REQUEST" None;
    empty_of_what_is_not_there:
        404 "" => NotFound "CERTIFICATE_NOT_FOUND" None;
    empty_of_a_refused_signature:
        401 "" => Internal "UPSTREAM_CREDENTIALS" None;
    with_nulls:
        400 r#"{"error_code":null,"error_msg":null,"request_id":null}"#
        => InvalidArgument "INVALID_REQUEST" None;
    with_a_code_that_is_none:
        400 r#"{"error_code":"p1anted 13212345678 & more","error_msg":"p1anted"}"#
        => InvalidArgument "INVALID_REQUEST" None;
    with_a_code_of_100_kib:
        500 &format!(r#"{{"error_code":"{}"}}"#, "p1anted".repeat(15_000))
        => Internal "UPSTREAM_ERROR" None;
    with_a_key_twice:
        400 r#"{"error_code":"SCM.0008","error_code":"SCM.0010"}"#
        => InvalidArgument "INVALID_REQUEST" None;
    that_say_success:
        500 super::SUCCESS => Internal "UPSTREAM_ERROR" None;
    as_a_list:
        400 r#"["SCM.0010","p1anted",null,null,null]"#
        => InvalidArgument "INVALID_REQUEST" None;
}

/// A proxy's header, the gateway's body or IAM's header.
#[tokio::test]
async fn a_request_id_wherever_it_is() {
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
