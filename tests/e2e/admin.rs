//! The admin listener: `/livez`, `/readyz` and `/metrics`.

use scm_emulator::{Emulator, Step};

use crate::harness::{Gateway, emulator, sample};

/// Returns the body of `/metrics`.
async fn metrics(gateway: &Gateway) -> String {
    let (status, text) = gateway.admin("/metrics").await;
    assert_eq!(status, 200);
    text
}

async fn gateway() -> (Emulator, Gateway) {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    (emulator, gateway)
}

#[tokio::test]
async fn gateway_is_live_and_ready_without_scm() {
    let (emulator, gateway) = gateway().await;
    drop(emulator);
    assert_eq!(gateway.admin("/livez").await, (200, "live\n".into()));
    assert_eq!(gateway.admin("/readyz").await, (200, "ready\n".into()));
    assert_eq!(gateway.admin("/other").await.0, 404);
}

#[tokio::test]
async fn only_get_and_head_are_allowed() {
    let (_emulator, gateway) = gateway().await;
    let url = format!("http://{}/livez", gateway.addresses.admin);
    let client = reqwest::Client::new();
    let response = client.post(&url).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["allow"].to_str().unwrap()), (405, "GET, HEAD"));
    assert_eq!(client.head(&url).send().await.unwrap().status().as_u16(), 200);
}

#[tokio::test]
async fn durations_are_in_seconds_with_bounded_labels() {
    let (emulator, gateway) = gateway().await;
    gateway.save(sample()).await.unwrap();
    emulator.scripts([Step::Close, Step::Close, Step::Close]);
    gateway.save(sample()).await.unwrap_err();

    let text = metrics(&gateway).await;
    let line = |name: &str, labels: &[&str]| {
        text.lines()
            .find(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)))
            .unwrap_or_else(|| panic!("{name} {labels:?} in:\n{text}"))
            .to_owned()
    };
    let method = r#"rpc_method="huaweicloud.scm.v1.CertificateService/SaveInfo""#;
    let ok = line("rpc_server_call_duration_seconds_count", &[method, r#"rpc_response_status_code="OK""#]);
    assert!(ok.ends_with(" 1") && !ok.contains("error_type"), "{ok}");
    let lost = [method, r#"error_type="UNAVAILABLE""#, r#"scm_reason="UPSTREAM_UNAVAILABLE""#];
    assert!(line("rpc_server_call_duration_seconds_count", &lost).ends_with(" 1"));
    let template = r#"url_template="/v2/{project_id}/scm/cert/{cert_id}/save""#;
    let request = [template, r#"http_response_status_code="200""#, r#"server_address="127.0.0.1""#];
    assert!(line("http_client_request_duration_seconds_count", &request).ends_with(" 1"));
    let lost = [template, r#"error_type="UPSTREAM_UNAVAILABLE""#];
    assert!(line("http_client_request_duration_seconds_count", &lost).ends_with(" 3"));
}

#[tokio::test]
async fn unknown_methods_share_one_label() {
    let (_emulator, gateway) = gateway().await;
    let mut grpc = tonic::client::Grpc::new(gateway.channel().await);
    for name in ["p1anted1", "p1anted2"] {
        grpc.ready().await.unwrap();
        let path = format!("/huaweicloud.scm.v1.CertificateService/{name}").parse().unwrap();
        let codec = tonic_prost::ProstCodec::<scm_gateway::proto::ReadInfoRequest, scm_gateway::proto::ReadInfoResponse>::default();
        let status = grpc.unary(tonic::Request::new(crate::harness::read()), path, codec).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unimplemented);
    }
    let text = metrics(&gateway).await;
    assert!(!text.contains("p1anted"));
    let other = text.lines().find(|line| line.contains("_count") && line.contains(r#"rpc_method="_OTHER""#)).unwrap();
    assert!(other.ends_with(" 2"), "{other}");
}

#[tokio::test]
async fn ids_are_labels_only_of_configured_projects() {
    let (_emulator, gateway) = gateway().await;
    gateway.save(sample()).await.unwrap();
    let text = metrics(&gateway).await;
    assert!(!text.contains("scs1481110651012"), "{text}");
    let by_project = |line: &&str| line.contains(scm_emulator::SAMPLE_PROJECT);
    assert!(text.lines().filter(by_project).all(|line| line.starts_with("scm_gateway_")), "{text}");
}

#[tokio::test]
async fn connection_closes_after_one_response() {
    let (_emulator, gateway) = gateway().await;
    let response = reqwest::get(format!("http://{}/livez", gateway.addresses.admin)).await.unwrap();
    assert_eq!(response.headers()["connection"], "close");
}
