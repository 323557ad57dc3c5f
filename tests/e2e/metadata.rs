//! Metadata that the gateway forwards, in either direction.

use tonic::Request;

use crate::harness::{Gateway, emulator, sample};

#[tokio::test]
async fn only_the_trace_context_is_forwarded() {
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
async fn unsampled_and_missing_traces_are_continued() {
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
async fn request_id_of_scm_is_returned() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let reply = gateway.save(sample()).await.unwrap();
    let id = reply.metadata().get("x-upstream-request-id").unwrap().to_str().unwrap();
    assert_eq!(id.len(), 32);
}

#[tokio::test]
async fn echoed_credentials_are_not_returned() {
    use scm_emulator::{Reply, SAMPLE_ACCESS_KEY, Step};
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("HUAWEICLOUD_SDK_SECURITY_TOKEN", "a-token-of-the-gateway")]).await;
    for echoed in
        [SAMPLE_ACCESS_KEY.to_owned(), SAMPLE_ACCESS_KEY.to_lowercase(), "x.a-token-of-the-gateway.x".to_owned()]
    {
        let good = Reply::json(200, r#"{"request_info":"success"}"#);
        let bad = Reply::json(400, &format!(r#"{{"error_code":"{echoed}","error_msg":"x"}}"#));
        emulator.scripts([good, bad].map(|reply| Step::Reply(reply.header("X-Request-Id", &echoed))));
        let reply = gateway.save(sample()).await.unwrap();
        assert!(!reply.metadata().contains_key("x-upstream-request-id"), "{echoed}");
        let status = gateway.save(sample()).await.unwrap_err();
        let returned = format!("{:?}{:?}", status.metadata(), crate::harness::seen(&status)).to_lowercase();
        assert!(!returned.contains(&echoed.to_lowercase()), "{returned}");
    }
}
