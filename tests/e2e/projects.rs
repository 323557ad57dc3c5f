//! The project of a call, and the credentials that sign its requests.

use scm_emulator::{Account, Emulator, Options, SAMPLE_PROJECT, Step};
use scm_gateway::{clock::Clock, proto::SaveInfoRequest};
use tonic::Code;

use crate::harness::{CERT, Gateway, assert_status, emulator, environment, folder::Folder, sample, sample_info};

#[tokio::test]
async fn empty_project_is_the_default_one() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    gateway.save(sample()).await.unwrap();
    gateway.save(SaveInfoRequest { project_id: SAMPLE_PROJECT.into(), ..sample() }).await.unwrap();
    let targets: Vec<_> = emulator.journal().into_iter().map(|sent| sent.target).collect();
    assert_eq!(targets, vec![format!("/v2/{SAMPLE_PROJECT}/scm/cert/{CERT}/save"); 2]);
}

#[tokio::test]
async fn unknown_project_is_rejected_before_the_fields() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    for project_id in ["ffffffffffffffffffffffffffffffff", "../..", " "] {
        let request = SaveInfoRequest { project_id: project_id.into(), cert_id: "!".into(), info: None };
        let status = gateway.save(request).await.unwrap_err();
        assert_status(&status, Code::PermissionDenied, "CALLER_NOT_ALLOWED", None);
    }
    assert_eq!(emulator.attempts(), 0);
}

/// Starts a gateway with the projects `one` and `two` (the default), each with its own credentials.
async fn two_projects(more: &[(&str, &str)]) -> (Emulator, Gateway) {
    let account = |access_key: &str, token: Option<&str>, project: &str| Account {
        access_key: access_key.into(),
        secret_key: format!("secret-of-{access_key}"),
        security_token: token.map(str::to_owned),
        projects: vec![project.to_owned()],
        ..Account::sample()
    };
    let accounts = vec![account("AKONE", None, "one"), account("AKTWO", Some("token-two"), "two")];
    let emulator = Emulator::start(Options { accounts, ..Options::default() }).await.unwrap();
    let folder = Folder::new();
    let files = [
        ("SCM_GATEWAY__PROJECTS__0__ID", "one".to_owned()),
        ("SCM_GATEWAY__PROJECTS__0__AK_FILE", folder.file("ak1", "AKONE\n")),
        ("SCM_GATEWAY__PROJECTS__0__SK_FILE", folder.file("sk1", "secret-of-AKONE\r\n")),
        ("SCM_GATEWAY__PROJECTS__1__ID", "two".to_owned()),
        ("SCM_GATEWAY__PROJECTS__1__AK_FILE", folder.file("ak2", "AKTWO")),
        ("SCM_GATEWAY__PROJECTS__1__SK_FILE", folder.file("sk2", "secret-of-AKTWO")),
        ("SCM_GATEWAY__PROJECTS__1__SECURITY_TOKEN_FILE", folder.file("token2", "token-two\n")),
        ("SCM_GATEWAY__DEFAULT_PROJECT", "two".to_owned()),
    ];
    let variables = files.iter().map(|(name, value)| (*name, value.as_str()));
    let variables: Vec<_> = variables.chain(more.iter().copied()).collect();
    let gateway = Gateway::start(environment(&emulator.endpoint(), &variables), Clock::system()).await;
    (emulator, gateway)
}

#[tokio::test]
async fn each_project_uses_its_own_credentials() {
    let (emulator, gateway) = two_projects(&[]).await;
    gateway.save(SaveInfoRequest { project_id: "one".into(), ..sample() }).await.unwrap();
    gateway
        .save(SaveInfoRequest { project_id: String::new(), cert_id: CERT.into(), info: Some(sample_info()) })
        .await
        .unwrap();

    let journal = emulator.journal();
    let seen: Vec<_> = journal
        .iter()
        .map(|s| (s.access_key.as_str(), s.header("x-project-id"), s.header("x-security-token")))
        .collect();
    assert_eq!(seen, [("AKONE", Some("one"), None), ("AKTWO", Some("two"), Some("token-two"))]);
}

#[tokio::test]
async fn hanging_project_cannot_use_all_permits() {
    let (emulator, gateway) = two_projects(&[("SCM_GATEWAY__SERVER__MAX_IN_FLIGHT", "4")]).await;
    let of_one = || SaveInfoRequest { project_id: "one".into(), ..sample() };
    gateway.save(of_one()).await.unwrap();
    emulator.scripts([Step::Hang, Step::Hang]);
    let hanging: Vec<_> = (0..2)
        .map(|_| {
            let mut client = gateway.client.clone();
            tokio::spawn(async move { client.save_info(of_one()).await })
        })
        .collect();
    emulator.wait_for_attempts(3).await;
    let status = gateway.save(of_one()).await.unwrap_err();
    assert_status(&status, Code::ResourceExhausted, "OVERLOADED", None);
    gateway.save(sample()).await.unwrap();
    assert_eq!(emulator.attempts(), 4);
    assert!(hanging.iter().all(|call| !call.is_finished()));
}

#[tokio::test]
async fn project_header_can_be_disabled() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__UPSTREAM__SEND_PROJECT_ID", "false")]).await;
    gateway.save(sample()).await.unwrap();
    let sent = &emulator.journal()[0];
    assert_eq!(sent.header("x-project-id"), None);
    assert!(sent.header("authorization").unwrap().contains("SignedHeaders=content-type;host;x-sdk-date,"));
}

#[tokio::test]
async fn rejected_credentials_are_internal_and_not_retried() {
    let emulator = emulator().await;
    let gateway = Gateway::with(&emulator, &[("HUAWEICLOUD_SDK_SK", "wrong")]).await;
    let status = gateway.save(sample()).await.unwrap_err();
    assert_status(&status, Code::Internal, "UPSTREAM_CREDENTIALS", Some(1));
    assert_eq!((emulator.attempts(), emulator.rejections().len(), emulator.journal().len()), (1, 1, 0));
}
