//! Temporary credentials from the metadata service of an ECS.

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
        sample, seen, until,
    },
    reload::{access_key_used, account, counted},
};

const DAY: Duration = Duration::from_secs(24 * 3600);
const FETCH: [&str; 2] = ["PUT /meta-data/latest/api/token", "GET /openstack/latest/securitykey token"];

async fn emulator() -> Emulator {
    let accounts = vec![account("1"), account("2")];
    Emulator::start(Options { accounts, ..Options::default() }).await.unwrap()
}

/// Starts a gateway whose only source of credentials is the metadata service.
async fn gateway(emulator: &Emulator, service: &MetadataService) -> Gateway {
    let mut environment = environment(&emulator.endpoint(), &[service.variable()]);
    environment.retain(|name, _| name != "HUAWEICLOUD_SDK_AK" && name != "HUAWEICLOUD_SDK_SK");
    Gateway::start(environment, Clock::system()).await
}

/// Makes a call with a deadline of 200 ms.
async fn call_with_short_deadline(gateway: &Gateway) -> Result<(), Status> {
    let mut request = Request::new(sample());
    request.set_timeout(Duration::from_millis(200));
    gateway.untimed_client().save_info(request).await.map(drop)
}

/// Asserts that a call fails because there are no credentials, and that nothing is sent.
async fn assert_no_credentials(emulator: &Emulator, gateway: &Gateway) {
    let attempts = emulator.attempts();
    let status = call_with_short_deadline(gateway).await.unwrap_err();
    assert_status(&status, Code::Internal, "UPSTREAM_CREDENTIALS", None);
    assert_eq!(emulator.attempts(), attempts);
}

const EXPIRY: &str = "scm_gateway_credentials_time_to_expiry_seconds{";

const EXCHANGES: &str = "scm_gateway_credentials_exchanges_total{";

/// Returns the outcome and the number of a line of the metrics.
fn counted_outcome(line: &str) -> (&str, &str) {
    assert!(line.contains(r#"source="ecs_agency""#), "{line}");
    let (_, outcome) = line.split_once("outcome=\"").unwrap();
    (outcome.split_once('"').unwrap().0, line.rsplit_once(' ').unwrap().1)
}

/// Waits until the metrics count an exchange with this outcome.
async fn exchanged(gateway: &Gateway, outcome: &str) {
    counted(gateway, EXCHANGES, outcome).await;
}

/// Waits until the time to expiry of the credentials meets `condition`.
async fn wait_for_time_to_expiry(gateway: &Gateway, condition: fn(f64) -> bool) {
    until("another time to expiry", || async { condition(gateway.metric(EXPIRY).await) }).await;
}

#[tokio::test]
async fn waiting_calls_share_the_first_fetch() {
    let emulator = emulator().await;
    let service = MetadataService::start().await;
    service.issue("1", DAY);
    service.open(false);
    let gateway = gateway(&emulator, &service).await;
    service.wait_for_requests(1).await;
    assert_no_credentials(&emulator, &gateway).await;
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
    assert!(emulator.rejections().is_empty());
    let journal = emulator.journal();
    assert_eq!((journal.len(), journal[0].access_key.as_str()), (100, "AK1"));
    assert_eq!(journal[0].header("x-security-token"), Some("token1"));
    assert!((86_300.0..=86_400.0).contains(&gateway.metric::<f64>(EXPIRY).await));
    let (_, metrics) = gateway.admin("/metrics").await;
    let mut exchanges: Vec<_> =
        metrics.lines().filter(|line| line.starts_with(EXCHANGES)).map(counted_outcome).collect();
    exchanges.sort_unstable();
    assert_eq!(exchanges, [("failed", "0"), ("issued", "1"), ("rejected", "0"), ("unchanged", "0")]);
    let expiry = metrics.lines().find(|line| line.starts_with(EXPIRY)).unwrap();
    assert!(expiry.contains(r#"source="ecs_agency""#) && expiry.contains("scm_project_id="), "{expiry}");
}

#[tokio::test]
async fn credentials_are_refreshed_before_they_expire() {
    let emulator = emulator().await;
    let service = MetadataService::start().await;
    service.issue("1", Duration::from_secs(4));
    let gateway = gateway(&emulator, &service).await;
    assert_eq!(access_key_used(&emulator, &gateway).await, "AK1");
    service.issue("2", DAY);
    wait_for_time_to_expiry(&gateway, |left| left > 4.0).await;
    assert_eq!(access_key_used(&emulator, &gateway).await, "AK2");
    assert_eq!(service.requests(), [FETCH, FETCH].concat());
    assert!(emulator.rejections().is_empty());
}

/// SCM rejects the first credentials, which it does not know.
#[tokio::test]
async fn rejection_by_scm_causes_one_exchange() {
    let emulator = emulator().await;
    let service = MetadataService::start().await;
    service.issue("unknown", DAY);
    let gateway = gateway(&emulator, &service).await;
    exchanged(&gateway, "issued").await;
    service.issue("2", DAY);
    let status = gateway.save(sample()).await.unwrap_err();
    assert_status(&status, Code::Internal, "UPSTREAM_CREDENTIALS", Some(1));
    service.wait_for_requests(4).await;
    until("the new credentials", || async { access_key_used(&emulator, &gateway).await == "AK2" }).await;
    assert_eq!(service.requests(), [FETCH, FETCH].concat());
}

/// The rejections of credentials that are rejected again cause no further exchanges.
#[tokio::test]
async fn rejections_of_new_credentials_cause_no_further_exchange() {
    let emulator = emulator().await;
    let service = MetadataService::start().await;
    service.issue("unknown1", DAY);
    let gateway = gateway(&emulator, &service).await;
    gateway.save(sample()).await.unwrap_err();
    service.issue("unknown2", DAY);
    service.wait_for_requests(4).await;
    let is_suspended = || async {
        let status = gateway.save(sample()).await.unwrap_err();
        !seen(&status).metadata.contains_key("attempts")
    };
    until("the suspension of the access key", is_suspended).await;
    assert_eq!(service.requests(), [FETCH, FETCH].concat());
}

#[tokio::test]
async fn rejected_request_is_not_retried_soon() {
    let emulator = emulator().await;
    let service = MetadataService::start().await;
    service.answer(401, "Please configure Cloud Service Agency first");
    let gateway = gateway(&emulator, &service).await;
    exchanged(&gateway, "rejected").await;
    service.issue("1", DAY);
    assert_no_credentials(&emulator, &gateway).await;
    assert_eq!(service.requests(), FETCH);
}

#[tokio::test]
async fn outage_keeps_credentials_until_they_expire() {
    let emulator = emulator().await;
    let service = MetadataService::start().await;
    service.issue("1", Duration::from_secs(4));
    let gateway = gateway(&emulator, &service).await;
    assert_eq!(access_key_used(&emulator, &gateway).await, "AK1");
    service.answer(500, "");
    exchanged(&gateway, "failed").await;
    assert_eq!(access_key_used(&emulator, &gateway).await, "AK1", "the previous credentials are still valid");
    wait_for_time_to_expiry(&gateway, |left| left == 0.0).await;
    while call_with_short_deadline(&gateway).await.is_ok() {} // the credentials may stay in use for a moment more
    assert_no_credentials(&emulator, &gateway).await;
    service.issue("2", DAY);
    assert_eq!(access_key_used(&emulator, &gateway).await, "AK2", "the call waited for the refresh");
    assert!(emulator.rejections().is_empty());
}

#[tokio::test]
async fn service_without_tokens_gets_no_token() {
    for status in [404, 405, 503] {
        let emulator = emulator().await;
        let service = MetadataService::start().await;
        service.answer_token(status, "<html>");
        service.issue("1", DAY);
        let gateway = gateway(&emulator, &service).await;
        assert_eq!(access_key_used(&emulator, &gateway).await, "AK1");
        assert_eq!(service.requests(), [FETCH[0], "GET /openstack/latest/securitykey"]);
    }
}

/// Starts with a service that responds like this, and asserts that the gateway recovers once the service works.
async fn recovers_from(token_request: bool, status: u16, body: String) {
    let emulator = emulator().await;
    let service = MetadataService::start().await;
    service.issue("1", DAY);
    let answer = if token_request { MetadataService::answer_token } else { MetadataService::answer };
    answer(&service, status, &body);
    let gateway = gateway(&emulator, &service).await;
    exchanged(&gateway, "failed").await;
    assert_eq!(service.requests()[..], FETCH[..if token_request { 1 } else { 2 }], "{status}");
    service.answer_token(200, TOKEN);
    service.issue("2", DAY);
    assert_eq!(access_key_used(&emulator, &gateway).await, "AK2", "the fetch is retried");
}

#[tokio::test]
async fn responses_without_credentials_are_failures() {
    let large = " ".repeat(64 * 1024 + 1);
    let answers = [(302, ""), (429, ""), (500, "{}"), (200, ""), (200, "{ \"credential\": {} }"), (200, &large)];
    let mut cases = JoinSet::new();
    for (status, body) in answers {
        cases.spawn(recovers_from(true, status, body.to_owned()));
        cases.spawn(recovers_from(false, status, body.to_owned()));
    }
    cases.join_all().await;
}

#[tokio::test]
async fn own_credentials_need_no_metadata_service() {
    let emulator = crate::harness::emulator().await;
    let service = MetadataService::start().await;
    let gateway = Gateway::with(&emulator, &[service.variable()]).await;
    gateway.save(sample()).await.unwrap();
    assert!(service.requests().is_empty());
    let metrics = gateway.admin("/metrics").await.1;
    assert!(!metrics.contains("credentials_exchanges") && !metrics.contains("time_to_expiry_seconds{"), "{metrics}");
}

#[tokio::test]
async fn projects_share_one_fetch() {
    let account = Account { projects: vec!["one".to_owned(), "two".to_owned()], ..account("1") };
    let emulator = Emulator::start(Options { accounts: vec![account], ..Options::default() }).await.unwrap();
    let service = MetadataService::start().await;
    service.issue("1", DAY);
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

/// `secrets.rs` tests the other credentials in the same way.
#[tokio::test]
async fn temporary_credentials_do_not_leak() {
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
    service.issue("p1anted", Duration::from_secs(4));
    let project = scm_emulator::SAMPLE_PROJECT;
    let variables = [service.variable(), ("SCM_GATEWAY__PROJECTS__0__ID", project), ("RUST_LOG", "trace")];
    let mut process = Process::start(&emulator.endpoint(), &variables).await;
    let mut client = client(&process.address).await;
    client.save_info(sample()).await.unwrap();
    service.answer(200, r#"{"credential":{"access":"p1anted","secret":"p1anted p1anted","securitytoken":"p1anted","expires_at":"p1anted"}}"#);
    let failed = process.line("temporary credentials refresh failed").await;
    assert_eq!((&failed["source"], &failed["project_ids"]), (&"ecs_agency".into(), &project.into()), "{failed}");
    service.answer(503, "p1anted");
    process.line("temporary credentials expired").await;
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
