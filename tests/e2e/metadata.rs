//! What crosses the gateway beside the message, in either direction.

use tonic::Request;

use crate::harness::{Gateway, emulator, sample};

#[tokio::test]
async fn nothing_of_the_callers_metadata_goes_out_but_the_trace() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let mut request = Request::new(sample());
    for (name, value) in [
        ("authorization", "Bearer p1anted"),
        ("cookie", "p1anted"),
        ("baggage", "user=p1anted"),
        ("tracestate", "vendor=p1anted"),
        ("x-project-id", "p1anted"),
        ("x-request-id", "p1anted"),
        ("x-sdk-date", "p1anted"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ] {
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    gateway.client.clone().save_info(request).await.unwrap();

    let sent = &emulator.journal()[0];
    assert!(!format!("{:?}", sent.headers).contains("p1anted"), "{:?}", sent.headers);
    assert_eq!(sent.headers.len(), 9, "{:?}", sent.headers);
    let traceparent = sent.header("traceparent").unwrap();
    assert!(traceparent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{traceparent}");
    assert!(traceparent.ends_with("-01"), "the sampled flag is kept though nothing is exported: {traceparent}");
    assert!(!traceparent.contains("00f067aa0ba902b7"), "the parent is the attempt's span: {traceparent}");
}

#[tokio::test]
async fn an_unsampled_trace_stays_unsampled_and_a_call_without_one_gets_its_own() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let mut request = Request::new(sample());
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    gateway.client.clone().save_info(request).await.unwrap();
    gateway.save(sample()).await.unwrap();

    let journal = emulator.journal();
    let unsampled = journal[0].header("traceparent").unwrap();
    assert!(unsampled.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && unsampled.ends_with("-00"), "{unsampled}");
    assert_eq!(journal[1].header("traceparent").unwrap().len(), parent.len());
}

#[tokio::test]
async fn the_vendors_request_id_comes_back() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let reply = gateway.save(sample()).await.unwrap();
    let id = reply.metadata().get("x-upstream-request-id").unwrap().to_str().unwrap();
    assert_eq!(id.len(), 32);
}

#[tokio::test]
async fn our_own_key_is_no_request_id_whatever_scm_says() {
    use scm_emulator::{Reply, SAMPLE_ACCESS_KEY, Step};
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("HUAWEICLOUD_SDK_SECURITY_TOKEN", "a-token-of-ours")]).await;
    for echoed in [SAMPLE_ACCESS_KEY.to_owned(), SAMPLE_ACCESS_KEY.to_lowercase(), "x.a-token-of-ours.x".to_owned()] {
        let good = Reply::json(200, r#"{"request_info":"success"}"#);
        let bad = Reply::json(400, &format!(r#"{{"error_code":"{echoed}","error_msg":"x"}}"#));
        emulator.scripts([good, bad].map(|reply| Step::Reply(reply.header("X-Request-Id", &echoed))));
        let reply = gateway.save(sample()).await.unwrap();
        assert!(!reply.metadata().contains_key("x-upstream-request-id"), "{echoed}");
        let status = gateway.save(sample()).await.unwrap_err();
        let told = format!("{:?}{:?}", status.metadata(), crate::harness::seen(&status)).to_lowercase();
        assert!(!told.contains(&echoed.to_lowercase()), "{told}");
    }
}
