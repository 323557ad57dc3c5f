//! Server reflection, v1 and v1alpha.

use tonic_reflection::pb::{v1, v1alpha};

use crate::harness::{Gateway, emulator};

fn list() -> v1::ServerReflectionRequest {
    v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
    }
}

#[tokio::test]
async fn both_versions_describe_the_services() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(gateway.channel().await);
    let mut stream = client.server_reflection_info(tokio_stream::iter([list(), list()])).await.unwrap().into_inner();
    stream.message().await.unwrap().expect("the first of two responses on one stream");
    let response = stream.message().await.unwrap().unwrap().message_response.unwrap();
    let v1::server_reflection_response::MessageResponse::ListServicesResponse(services) = response else {
        panic!("the response is not a list");
    };
    let names: Vec<_> = services.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"huaweicloud.scm.v1.CertificateService"), "{names:?}");
    assert!(names.contains(&"grpc.health.v1.Health"), "{names:?}");

    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
            "huaweicloud.scm.v1.CertificateService".into(),
        )),
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(gateway.channel().await);
    let mut stream = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
    let response = stream.message().await.unwrap().unwrap().message_response.unwrap();
    assert!(matches!(response, v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_)));
}

#[tokio::test]
async fn reflection_can_be_disabled() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__REFLECTION", "false")]).await;
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(gateway.channel().await);
    let status = client.server_reflection_info(tokio_stream::iter([list()])).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
}
