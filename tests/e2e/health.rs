//! The health service, `grpc.health.v1`.

use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::harness::{Gateway, emulator};

const SERVICES: [&str; 2] = ["", "huaweicloud.scm.v1.CertificateService"];

fn request(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn server_and_service_are_serving() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let mut health = HealthClient::new(gateway.channel().await);
    for service in SERVICES {
        assert_eq!(
            health.check(request(service)).await.unwrap().into_inner().status(),
            ServingStatus::Serving,
            "{service}"
        );
    }
    assert_eq!(health.check(request("other")).await.unwrap_err().code(), Code::NotFound);
}

/// As the health protocol says; grpc-go's client-side health checking relies on it.
#[tokio::test]
async fn watch_of_an_unknown_service_stays_open_until_the_drain() {
    let emulator = emulator().await;
    let variables = [("SCM_GATEWAY__SERVER__DRAIN", "1h"), ("SCM_GATEWAY__SERVER__LAME_DUCK", "1s")];
    let mut gateway = Gateway::with(&emulator, &variables).await;
    let mut health = HealthClient::new(gateway.channel().await);
    let mut watch = health.watch(request("other")).await.unwrap().into_inner();
    let mut known = health.watch(request("")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    assert_eq!(known.message().await.unwrap().unwrap().status(), ServingStatus::Serving);

    gateway.stop();

    tokio::select! {
        biased;
        ended = watch.message() => panic!("the watch did not stay open: {ended:?}"),
        known = known.message() => assert_eq!(known.unwrap().unwrap().status(), ServingStatus::NotServing),
    }
    assert!(watch.message().await.unwrap().is_none(), "the stream ends without an error");
    gateway.stopped().await;
}

#[tokio::test]
async fn watch_gets_not_serving_and_ends_with_the_drain() {
    let emulator = emulator().await;
    let mut gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__SERVER__DRAIN", "1h")]).await;
    let mut health = HealthClient::new(gateway.channel().await);
    let mut watch = health.watch(request("")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);

    gateway.stop();

    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(watch.message().await.unwrap().is_none(), "the stream ends without an error");
    gateway.stopped().await;
}
