//! Readiness, by `/readyz` and by `grpc.health.v1`.

use std::fs;

use scm_emulator::{Account, Emulator, Options, Reply, Step};
use scm_gateway::{clock::Clock, proto::SaveInfoRequest};
use tonic::{Code, Streaming};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::harness::{
    Gateway, METADATA_ENDPOINT, assert_status, emulator, environment, folder::Folder, metadata_service, sample, seen,
};

const SERVICES: [&str; 2] = ["", "huaweicloud.scm.v1.CertificateService"];

/// A health watch of each service.
struct Watch(Vec<Streaming<HealthCheckResponse>>);

impl Watch {
    async fn of(gateway: &Gateway) -> Self {
        let mut watches = Vec::new();
        for service in SERVICES {
            let request = HealthCheckRequest { service: service.to_owned() };
            watches.push(HealthClient::new(gateway.channel().await).watch(request).await.unwrap().into_inner());
        }
        Self(watches)
    }

    /// Returns the next status, which is the same for both services.
    async fn next(&mut self) -> ServingStatus {
        let mut statuses = Vec::new();
        for watch in &mut self.0 {
            statuses.push(watch.message().await.unwrap().unwrap().status());
        }
        assert_eq!(statuses[0], statuses[1]);
        statuses[0]
    }
}

async fn assert_ready(gateway: &Gateway) {
    assert_eq!(gateway.admin("/readyz").await, (200, "ready\n".into()));
}

async fn assert_no_usable_credentials(gateway: &Gateway) {
    assert_eq!(gateway.admin("/readyz").await, (503, "not ready: no usable credentials\n".into()));
    assert_eq!(gateway.admin("/livez").await, (200, "live\n".into()), "a restart would not help");
}

#[tokio::test]
async fn gateway_is_ready_after_the_first_credentials() {
    let emulator = emulator().await;
    let service = metadata_service(&emulator.issuer()).await;
    service.pause();
    let variables = [(METADATA_ENDPOINT, &*service.endpoint())];
    let mut gateway = Gateway::without_access_key(&emulator, &variables).await;
    let mut watch = Watch::of(&gateway).await;
    assert_eq!(watch.next().await, ServingStatus::NotServing);
    assert_no_usable_credentials(&gateway).await;

    service.resume();

    assert_eq!(watch.next().await, ServingStatus::Serving);
    assert_ready(&gateway).await;
    gateway.stop();
    assert_eq!(watch.next().await, ServingStatus::NotServing, "the drain is the next change");
    gateway.stopped().await;
}

/// Starts a gateway with two projects, each with its own access key and a wrong secret key.
async fn two_projects(folder: &Folder) -> (Emulator, Gateway) {
    let account = |name: &str| Account {
        access_key: format!("AK{name}"),
        secret_key: format!("SK{name}"),
        security_token: None,
        projects: vec![name.to_owned()],
        ..Account::sample()
    };
    let accounts = vec![account("one"), account("two")];
    let emulator = Emulator::start(Options { accounts, ..Options::default() }).await.unwrap();
    let files = [
        ("SCM_GATEWAY__PROJECTS__0__ID", "one".to_owned()),
        ("SCM_GATEWAY__PROJECTS__0__AK_FILE", folder.file("ak1", "AKone")),
        ("SCM_GATEWAY__PROJECTS__0__SK_FILE", folder.file("sk1", "wrong")),
        ("SCM_GATEWAY__PROJECTS__1__ID", "two".to_owned()),
        ("SCM_GATEWAY__PROJECTS__1__AK_FILE", folder.file("ak2", "AKtwo")),
        ("SCM_GATEWAY__PROJECTS__1__SK_FILE", folder.file("sk2", "wrong")),
        ("SCM_GATEWAY__DEFAULT_PROJECT", "one".to_owned()),
    ];
    let variables: Vec<_> = files.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let gateway = Gateway::start(environment(&emulator.endpoint(), &variables), Clock::system()).await;
    (emulator, gateway)
}

#[tokio::test]
async fn not_ready_while_all_credentials_are_suspended() {
    let folder = Folder::new();
    let (emulator, gateway) = two_projects(&folder).await;
    let mut watch = Watch::of(&gateway).await;
    assert_eq!(watch.next().await, ServingStatus::Serving);
    let of = |project: &str| SaveInfoRequest { project_id: project.to_owned(), ..sample() };
    for project in ["one", "two"] {
        assert_ready(&gateway).await; // one project is enough
        for _ in 0..2 {
            let status = gateway.save(of(project)).await.unwrap_err();
            assert_status(&status, Code::Internal, "UPSTREAM_CREDENTIALS", Some(1));
        }
    }
    assert_no_usable_credentials(&gateway).await;
    assert_eq!(watch.next().await, ServingStatus::NotServing);
    assert_eq!(
        seen(&gateway.save(sample()).await.unwrap_err()).reason,
        "UPSTREAM_CREDENTIALS",
        "the gateway still serves calls"
    );
    assert_eq!(emulator.attempts(), 4);

    fs::write(folder.path("sk2"), "SKtwo").unwrap();

    assert_eq!(watch.next().await, ServingStatus::Serving);
    assert_ready(&gateway).await;
    gateway.save(of("two")).await.unwrap();
}

#[tokio::test]
async fn scm_outage_does_not_change_readiness() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__UPSTREAM__ATTEMPTS", "1")]).await;
    emulator.scripts((0..7).map(|_| Step::Reply(Reply::new(503))));
    for _ in 0..7 {
        gateway.save(sample()).await.unwrap_err();
    }
    let status = gateway.save(sample()).await.unwrap_err();
    assert_status(&status, Code::Unavailable, "CIRCUIT_OPEN", None);
    assert_ready(&gateway).await;
    assert_eq!(Watch::of(&gateway).await.next().await, ServingStatus::Serving);
}
