//! SCM closes an idle connection at the moment when the next request arrives, without reading it.

use scm_emulator::{Reply, Step};
use tonic::Code;

use crate::harness::{
    Gateway, assert_status, emulator,
    rpc::rpcs,
    samples::{self, Filling},
};

#[tokio::test]
async fn a_request_lost_with_its_connection_is_repeated_if_idempotent() {
    for rpc in rpcs() {
        let emulator = emulator().await;
        let gateway = Gateway::serving_all(&emulator, &[]).await;
        let (status, body) = rpc.success();
        let success = || Step::Reply(Reply::json(status, &body));
        let request = samples::request(&rpc, Filling::Required);
        emulator.script(success());
        gateway.call(&rpc, request.clone()).await.unwrap();
        emulator.scripts([Step::CloseUnread, success()]);
        let result = gateway.call(&rpc, request).await;
        match &result {
            Ok(_) => assert!(rpc.idempotent, "{}", rpc.name()),
            Err(status) => {
                assert!(!rpc.idempotent, "{}: {status:?}", rpc.name());
                assert_status(status, Code::Unknown, "UPSTREAM_OUTCOME_UNKNOWN", Some(1));
            }
        }
        assert_eq!(emulator.attempts(), if rpc.idempotent { 2 } else { 1 }, "the closed connection was not read");
    }
}
