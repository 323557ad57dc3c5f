//! Temporary keys from the metadata service of an ECS.

use std::time::Duration;

use scm_emulator::{Account, Emulator, Options};
use scm_gateway::{clock::Clock, proto::SaveInfoRequest};
use tokio::task::JoinSet;
use tonic::{Code, Request, Status};

use crate::{
    harness::{
        Gateway, assert_status, client, environment,
        metadata_service::{MetadataService, TOKEN},
        process::Process,
        sample,
    },
    reload::{account, reloaded, used},
};

const DAY: Duration = Duration::from_secs(24 * 3600);
const FETCH: [&str; 2] = ["PUT /meta-data/latest/api/token", "GET /openstack/latest/securitykey token"];

async fn emulator() -> Emulator {
    let accounts = vec![account("1"), account("2")];
    Emulator::start(Options { accounts, ..Options::default() }).await.unwrap()
}

/// A gateway with the agency alone for a key.
async fn gateway(emulator: &Emulator, service: &MetadataService) -> Gateway {
    let mut environment = environment(&emulator.endpoint(), &[service.variable()]);
    environment.retain(|name, _| name != "HUAWEICLOUD_SDK_AK" && name != "HUAWEICLOUD_SDK_SK");
    Gateway::start(environment, Clock::system()).await
}

/// A call that does not wait long.
async fn impatient(gateway: &Gateway) -> Result<(), Status> {
    let mut request = Request::new(sample());
    request.set_timeout(Duration::from_millis(200));
    gateway.patient_client().save_info(request).await.map(drop)
}

/// Such a call ends for want of a key, and nothing is sent.
async fn assert_no_key(emulator: &Emulator, gateway: &Gateway) {
    let attempts = emulator.attempts();
    let status = impatient(gateway).await.unwrap_err();
    assert_status(&status, Code::Internal, "UPSTREAM_CREDENTIALS", None);
    assert_eq!(emulator.attempts(), attempts);
}

const EXPIRY: &str = "scm_gateway_credentials_time_to_expiry_seconds{";

/// Waits until the key in use is good for so long.
async fn until_expiry(gateway: &Gateway, is_so: fn(f64) -> bool) {
    for _ in 0..1000 {
        if is_so(gateway.metric(EXPIRY).await) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the key is good for {} s", gateway.metric::<f64>(EXPIRY).await);
}

#[tokio::test]
async fn calls_wait_for_the_first_key_and_any_number_of_them_costs_one_fetch() {
    let (emulator, service) = (emulator().await, MetadataService::start().await);
    service.hand_out("1", DAY);
    service.open(false);
    let gateway = gateway(&emulator, &service).await;
    service.wait_for_requests(1).await;
    assert_no_key(&emulator, &gateway).await;
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let mut client = gateway.client.clone();
            tokio::spawn(async move { client.save_info(sample()).await })
        })
        .collect();
    tokio::task::yield_now().await;
    service.open(true);
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(service.requests(), FETCH);
    assert!(emulator.refusals().is_empty());
    let journal = emulator.journal();
    assert_eq!((journal.len(), journal[0].access_key.as_str()), (100, "AK1"));
    assert_eq!(journal[0].header("x-security-token"), Some("token1"));
    assert!((86_300.0..=86_400.0).contains(&gateway.metric::<f64>(EXPIRY).await));
}

#[tokio::test]
async fn another_key_is_taken_before_the_old_one_expires() {
    let (emulator, service) = (emulator().await, MetadataService::start().await);
    service.hand_out("1", Duration::from_secs(4));
    let gateway = gateway(&emulator, &service).await;
    assert_eq!(used(&emulator, &gateway).await, "AK1");
    service.hand_out("2", DAY);
    until_expiry(&gateway, |left| left > 4.0).await;
    assert_eq!(used(&emulator, &gateway).await, "AK2");
    assert_eq!(service.requests(), [FETCH, FETCH].concat());
    assert!(emulator.refusals().is_empty());
}

#[tokio::test]
async fn while_the_service_is_away_the_key_is_used_until_it_expires_and_then_calls_wait_again() {
    let (emulator, service) = (emulator().await, MetadataService::start().await);
    service.hand_out("1", Duration::from_secs(4));
    let gateway = gateway(&emulator, &service).await;
    assert_eq!(used(&emulator, &gateway).await, "AK1");
    service.answer(500, "");
    reloaded(&gateway, "failure").await;
    assert_eq!(used(&emulator, &gateway).await, "AK1", "old, and good");
    until_expiry(&gateway, |left| left == 0.0).await;
    while impatient(&gateway).await.is_ok() {} // it may take a moment more
    assert_no_key(&emulator, &gateway).await;
    service.hand_out("2", DAY);
    assert_eq!(used(&emulator, &gateway).await, "AK2", "it waited");
    assert!(emulator.refusals().is_empty());
}

#[tokio::test]
async fn a_service_without_tokens_is_asked_without() {
    for status in [404, 405] {
        let (emulator, service) = (emulator().await, MetadataService::start().await);
        service.answer_token(status, "<html>");
        service.hand_out("1", DAY);
        let gateway = gateway(&emulator, &service).await;
        assert_eq!(used(&emulator, &gateway).await, "AK1");
        assert_eq!(service.requests(), [FETCH[0], "GET /openstack/latest/securitykey"]);
    }
}

/// Starts with a service that answers so, and is mended then.
async fn recovers_from(of_token: bool, status: u16, body: String) {
    let (emulator, service) = (emulator().await, MetadataService::start().await);
    service.hand_out("1", DAY);
    let answer = if of_token { MetadataService::answer_token } else { MetadataService::answer };
    answer(&service, status, &body);
    let gateway = gateway(&emulator, &service).await;
    reloaded(&gateway, "failure").await;
    assert_eq!(service.requests()[..], FETCH[..if of_token { 1 } else { 2 }], "{status}");
    service.answer_token(200, TOKEN);
    service.hand_out("2", DAY);
    assert_eq!(used(&emulator, &gateway).await, "AK2", "it is tried again");
}

#[tokio::test]
async fn an_answer_that_holds_no_key_is_a_failure_and_no_redirect_is_followed() {
    let large = " ".repeat(64 * 1024 + 1);
    let answers = [(302, ""), (401, ""), (500, "{}"), (200, ""), (200, "{ \"credential\": {} }"), (200, &large)];
    let mut cases = JoinSet::new();
    for (status, body) in answers {
        cases.spawn(recovers_from(true, status, body.to_owned()));
        cases.spawn(recovers_from(false, status, body.to_owned()));
    }
    cases.join_all().await;
}

#[tokio::test]
async fn nobody_is_asked_by_projects_with_keys_of_their_own() {
    let (emulator, service) = (crate::harness::emulator().await, MetadataService::start().await);
    let gateway = Gateway::with(&emulator, &[service.variable()]).await;
    gateway.save(sample()).await.unwrap();
    assert!(service.requests().is_empty());
}

#[tokio::test]
async fn projects_share_one_fetch() {
    let account = Account { projects: vec!["one".to_owned(), "two".to_owned()], ..account("1") };
    let emulator = Emulator::start(Options { accounts: vec![account], ..Options::default() }).await.unwrap();
    let service = MetadataService::start().await;
    service.hand_out("1", DAY);
    let variables = [
        service.variable(),
        ("SCM_GATEWAY__PROJECTS__0__ID", "one"),
        ("SCM_GATEWAY__PROJECTS__1__ID", "two"),
        ("SCM_GATEWAY__DEFAULT_PROJECT", "one"),
    ];
    let gateway = Gateway::with(&emulator, &variables).await;
    for project_id in ["one", "two"] {
        gateway.save(SaveInfoRequest { project_id: project_id.into(), ..sample() }).await.unwrap();
    }
    assert!(emulator.journal().iter().all(|sent| sent.access_key == "AK1"));
    assert_eq!(service.requests(), FETCH);
}

/// As `secrets.rs` does for everything else.
#[tokio::test]
async fn nothing_of_a_key_or_a_token_is_found_in_what_leaves() {
    const MARKERS: [&str; 3] = ["p1anted", "169.254", "securitykey"];
    let planted = Account {
        access_key: "AKp1anted".into(),
        secret_key: "SKp1anted".into(),
        security_token: Some("tokenp1anted".into()),
        ..account("1")
    };
    let emulator = Emulator::start(Options { accounts: vec![planted], ..Options::default() }).await.unwrap();
    let service = MetadataService::start().await;
    service.answer_token(200, "p1anted-token");
    service.hand_out("p1anted", Duration::from_secs(4));
    let project = scm_emulator::SAMPLE_PROJECT;
    let variables = [service.variable(), ("SCM_GATEWAY__PROJECTS__0__ID", project), ("RUST_LOG", "trace")];
    let mut process = Process::start(&emulator.endpoint(), &variables).await;
    let mut client = client(&process.address).await;
    client.save_info(sample()).await.unwrap();
    service.answer(200, r#"{"credential":{"access":"p1anted","secret":"p1anted p1anted","securitytoken":"p1anted","expires_at":"p1anted"}}"#);
    process.line("no other temporary key").await;
    service.answer(403, "p1anted");
    process.line("the temporary key has expired").await;
    service.answer_token(500, "p1anted");
    let before = service.requests().len();
    service.wait_for_requests(before + 1).await;
    let mut request = Request::new(sample());
    request.set_timeout(Duration::from_millis(200));
    let status = client.save_info(request).await.unwrap_err();
    process.signal("TERM");
    let (code, log) = process.end().await;
    assert_eq!(code, Some(0));
    for marker in MARKERS {
        assert!(!log.join("\n").contains(marker), "{marker} in {log:#?}");
        assert!(!format!("{status:?}").contains(marker), "{status:?}");
    }
}
