//! The status table of the contract, for every method: HTTP status and error code of a response, and what they become.

use scm_emulator::{Reply, Step};
use tokio::task::JoinSet;
use tonic::Code::{
    Aborted, FailedPrecondition, Internal, InvalidArgument, NotFound, PermissionDenied, ResourceExhausted,
};

use crate::harness::{
    Gateway, assert_status, emulator,
    rpc::{Rpc, rpcs},
    samples::{self, Filling},
};

/// The reason of a 404 that is about what the path names.
const NAMED_BY_PATH: &str = "";

/// HTTP status, error code, status and reason. None of them is retried.
const ROWS: [(u16, &str, tonic::Code, &str); 41] = [
    (400, "", InvalidArgument, "INVALID_REQUEST"),
    (400, "SCM.9999", InvalidArgument, "INVALID_REQUEST"),
    (413, "", InvalidArgument, "INVALID_REQUEST"),
    (414, "", InvalidArgument, "INVALID_REQUEST"),
    (431, "", InvalidArgument, "INVALID_REQUEST"),
    (494, "", InvalidArgument, "INVALID_REQUEST"),
    (500, "SCM.0005", InvalidArgument, "INVALID_REQUEST"),
    (404, "", NotFound, NAMED_BY_PATH),
    (404, "SCM.9999", NotFound, NAMED_BY_PATH),
    (404, "no code", NotFound, NAMED_BY_PATH),
    (400, "SCM.0008", NotFound, "CERTIFICATE_NOT_FOUND"),
    (400, "SCM.0020", NotFound, "CERTIFICATE_NOT_FOUND"),
    (404, "SCM.0008", NotFound, "CERTIFICATE_NOT_FOUND"),
    (400, "SCM.0707", NotFound, "RESOURCE_NOT_FOUND"),
    (404, "SCM.0707", NotFound, "RESOURCE_NOT_FOUND"),
    (400, "SCM.0003", PermissionDenied, "CERTIFICATE_NOT_OWNED"),
    (400, "SCM.0010", FailedPrecondition, "CERTIFICATE_STATE"),
    (500, "SCM.0010", FailedPrecondition, "CERTIFICATE_STATE"),
    (412, "", FailedPrecondition, "CERTIFICATE_STATE"),
    (422, "", FailedPrecondition, "CERTIFICATE_STATE"),
    (409, "", Aborted, "UPSTREAM_CONFLICT"),
    (402, "", FailedPrecondition, "UPSTREAM_ACCOUNT"),
    (403, "", FailedPrecondition, "UPSTREAM_ACCOUNT"),
    (403, "SCM.0002", FailedPrecondition, "UPSTREAM_ACCOUNT"),
    (401, "SCM.4002", FailedPrecondition, "UPSTREAM_ACCOUNT"),
    (401, "APIG.0310", FailedPrecondition, "UPSTREAM_ACCOUNT"),
    (401, "", Internal, "UPSTREAM_CREDENTIALS"),
    (401, "APIG.0301", Internal, "UPSTREAM_CREDENTIALS"),
    (401, "APIG.1009", Internal, "UPSTREAM_CREDENTIALS"),
    (404, "APIG.0101", Internal, "UPSTREAM_CONFIGURATION"),
    (404, "APIGW.0101", Internal, "UPSTREAM_CONFIGURATION"),
    (405, "", Internal, "UPSTREAM_CONFIGURATION"),
    (400, "APIG.0602", Internal, "UPSTREAM_CONFIGURATION"),
    (418, "", Internal, "UPSTREAM_ERROR"),
    (500, "", Internal, "UPSTREAM_ERROR"),
    (500, "SCM.9999", Internal, "UPSTREAM_ERROR"),
    (505, "", Internal, "UPSTREAM_ERROR"),
    (599, "", Internal, "UPSTREAM_ERROR"),
    (429, "", ResourceExhausted, "UPSTREAM_THROTTLED"),
    (400, "APIG.0308", ResourceExhausted, "UPSTREAM_THROTTLED"),
    (302, "", Internal, "UPSTREAM_MALFORMED"),
];

/// Returns what a 404 without a known code is about.
fn named(rpc: &Rpc) -> &'static str {
    if rpc.template.contains("{cert_id}") { "CERTIFICATE_NOT_FOUND" } else { "RESOURCE_NOT_FOUND" }
}

/// Makes a call that gets each response in turn.
async fn assert_rows(rpc: Rpc) {
    let request = samples::request(&rpc, Filling::Required);
    let mut emulator = emulator().await;
    let mut gateway = Gateway::serving_all(&emulator, &[]).await;
    for (http_status, upstream_code, code, reason) in ROWS {
        let body = match upstream_code {
            "" => String::new(),
            code => format!(r#"{{"error_code":"{code}","error_msg":"p1anted"}}"#),
        };
        let before = emulator.attempts();
        emulator.script(Step::Reply(Reply::json(http_status, &body)));
        let status = gateway.call(&rpc, request.clone()).await.unwrap_err();
        let reason = if reason == NAMED_BY_PATH { named(&rpc) } else { reason };
        assert_status(&status, code, reason, Some(1));
        assert!(!format!("{status:?}").contains("p1anted"), "{status:?}");
        assert_eq!(emulator.attempts() - before, 1, "{} {http_status} {upstream_code}", rpc.name());
        // A cooldown or the suspicion of the credentials follows.
        if ["UPSTREAM_THROTTLED", "UPSTREAM_CREDENTIALS"].contains(&reason) {
            emulator = crate::harness::emulator().await;
            gateway = Gateway::serving_all(&emulator, &[]).await;
        }
    }
}

#[tokio::test]
async fn every_method_maps_statuses_and_codes_alike() {
    rpcs().into_iter().map(assert_rows).collect::<JoinSet<_>>().join_all().await;
}
