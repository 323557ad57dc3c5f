//! Temporary credentials from the metadata service of an ECS.

use std::time::Duration;

use scm_emulator::{Issue, Metadata, Reply, Rights, Step, Version};
use scm_gateway::proto::SaveInfoRequest;
use tokio::task::JoinSet;
use tonic::{Code, Request};

use super::{EXPIRY, Lab, assert_no_credentials};
use crate::harness::{Gateway, METADATA_ENDPOINT, assert_status, client, process::Process, sample};

const TOKEN: &str = "PUT /meta-data/latest/api/token";
const KEY: &str = "GET /openstack/latest/securitykey token";
const KEY_WITHOUT_TOKEN: &str = "GET /openstack/latest/securitykey";

/// Returns the method and path of every request, followed by `token` if the request had one.
fn requests(lab: &Lab) -> Vec<String> {
    let show = |exchange: &scm_emulator::Exchange| {
        let token = if exchange.token().is_some() { " token" } else { "" };
        format!("{} {}{token}", exchange.method, exchange.target)
    };
    lab.service.exchanges().iter().map(show).collect()
}

#[tokio::test]
async fn metadata_service_is_asked_with_a_token() {
    let lab = Lab::ecs_agency(Metadata::default()).await;
    let gateway = lab.gateway(&lab.variables()).await;
    lab.assert_last_credentials_are_used(&gateway).await;
    assert_eq!(requests(&lab), [TOKEN, KEY]);
    assert!(lab.service.exchanges().iter().all(|exchange| exchange.rejection.is_none()));
    assert!((86_300.0..=86_400.0).contains(&gateway.metric::<f64>(EXPIRY).await));
    for (outcome, count) in [("issued", 1), ("unchanged", 0), ("rejected", 0), ("failed", 0)] {
        assert_eq!(lab.exchanges(&gateway, outcome).await, count, "{outcome}");
    }
    let metrics = gateway.admin("/metrics").await.1;
    let expiry = metrics.lines().find(|line| line.starts_with(EXPIRY)).unwrap();
    assert!(expiry.contains(r#"source="ecs_agency""#) && expiry.contains("scm_project_id="), "{expiry}");
}

#[tokio::test]
async fn each_refresh_gets_a_new_token() {
    let lab = Lab::ecs_agency(Metadata::default()).await;
    lab.service.set_validity(Some(Duration::from_secs(4)));
    let gateway = lab.gateway(&lab.variables()).await;
    lab.assert_last_credentials_are_used(&gateway).await;
    lab.service.set_validity(None);
    lab.wait_for_outcome(&gateway, "issued", 2).await;
    lab.assert_last_credentials_are_used(&gateway).await;
    assert_eq!(requests(&lab), [TOKEN, KEY, TOKEN, KEY]);
    assert!(lab.emulator.rejections().is_empty());
}

#[tokio::test]
async fn service_without_tokens_gets_no_token() {
    for status in [404, 405, 503] {
        let lab = Lab::ecs_agency(Metadata { version: Version::One(status), ..Metadata::default() }).await;
        let gateway = lab.gateway(&lab.variables()).await;
        lab.assert_last_credentials_are_used(&gateway).await;
        assert_eq!(requests(&lab), [TOKEN, KEY_WITHOUT_TOKEN], "{status}");
    }
}

/// The service repeats the credentials that SCM rejects.
#[tokio::test]
async fn rejection_by_scm_causes_one_exchange() {
    let lab = Lab::ecs_agency(Metadata::default()).await;
    let gateway = lab.gateway(&lab.variables()).await;
    lab.assert_last_credentials_are_used(&gateway).await;
    lab.emulator.issuer().revoke(&lab.issued().account.access_key);
    for _ in 0..2 {
        let status = gateway.save(sample()).await.unwrap_err();
        assert_status(&status, Code::Internal, "UPSTREAM_CREDENTIALS", Some(1));
    }
    lab.wait_for_outcome(&gateway, "unchanged", 1).await;
    let status = gateway.save(sample()).await.unwrap_err();
    assert_status(&status, Code::Internal, "UPSTREAM_CREDENTIALS", None);
    assert_eq!(requests(&lab), [TOKEN, KEY, TOKEN, KEY]);
}

#[tokio::test]
async fn ecs_without_an_agency_gets_one_request_in_five_minutes() {
    let lab = Lab::ecs_agency(Metadata { agency: None, ..Metadata::default() }).await;
    let gateway = lab.gateway(&lab.variables()).await;
    lab.wait_for_outcome(&gateway, "rejected", 1).await;
    assert_no_credentials(&lab, &gateway).await;
    assert_eq!(lab.exchanges(&gateway, "rejected").await, 1);
    assert_eq!(requests(&lab)[..2], [TOKEN, KEY]);
}

/// Starts with a service that responds like this, and asserts that the gateway recovers once the service works.
async fn recovers_from(segment: &'static str, status: u16, body: String) {
    let lab = Lab::ecs_agency(Metadata::default()).await;
    let location = "/openstack/latest/securitykey";
    lab.service.always_for(segment, Step::Reply(Reply::new(status).header("Location", location).body(body)));
    let gateway = lab.gateway(&lab.variables()).await;
    lab.wait_for_outcome(&gateway, "failed", 1).await;
    let expected = if segment == "token" { &[TOKEN][..] } else { &[TOKEN, KEY] };
    assert_eq!(requests(&lab)[..expected.len()], *expected, "{status}");
    lab.service.always_for(segment, Step::Serve);
    lab.assert_last_credentials_are_used(&gateway).await;
}

#[tokio::test]
async fn responses_without_credentials_are_failures() {
    let large = " ".repeat(64 * 1024 + 1);
    let answers = [(302, ""), (429, ""), (500, "{}"), (200, ""), (200, "{ \"credential\": {} }"), (200, &large)];
    let mut cases = JoinSet::new();
    for (status, body) in answers {
        for segment in ["token", "securitykey"] {
            cases.spawn(recovers_from(segment, status, body.to_owned()));
        }
    }
    cases.join_all().await;
}

#[tokio::test]
async fn own_credentials_need_no_metadata_service() {
    let lab = Lab::ecs_agency(Metadata::default()).await;
    let endpoint = lab.service.endpoint();
    let variables = [(METADATA_ENDPOINT, endpoint.as_str())];
    let gateway = Gateway::with(&lab.emulator, &variables).await;
    gateway.save(sample()).await.unwrap();
    assert_eq!(lab.service.connections(), 0);
    let metrics = gateway.admin("/metrics").await.1;
    assert!(!metrics.contains("credentials_exchanges") && !metrics.contains("time_to_expiry_seconds{"), "{metrics}");
}

#[tokio::test]
async fn projects_share_one_exchange() {
    let rights = Rights { projects: vec!["one".to_owned(), "two".to_owned()], ..Rights::default() };
    let lab = Lab::ecs_agency(Metadata { agency: Some(rights), ..Metadata::default() }).await;
    let mut variables = lab.variables();
    variables.extend([
        ("SCM_GATEWAY__PROJECTS__0__ID", "one".to_owned()),
        ("SCM_GATEWAY__PROJECTS__1__ID", "two".to_owned()),
        ("SCM_GATEWAY__DEFAULT_PROJECT", "one".to_owned()),
    ]);
    let gateway = lab.gateway(&variables).await;
    for project_id in ["one", "two"] {
        gateway.save(SaveInfoRequest { project_id: project_id.into(), ..sample() }).await.unwrap();
    }
    assert_eq!(requests(&lab), [TOKEN, KEY]);
}

/// `secrets.rs` tests the other credentials in the same way.
#[tokio::test]
async fn temporary_credentials_do_not_leak() {
    const MARKERS: [&str; 6] =
        ["p1anted", "169.254", "securitykey", "HSTAEXAMPLE", "EXAMPLEtemporarySK", "EXAMPLEimdsTOKEN"];
    let lab = Lab::ecs_agency(Metadata::default()).await;
    lab.service.script_for("securitykey", Step::Issue(Issue::Valid(Duration::from_secs(4))));
    let planted = r#"{"credential":{"access":"p1anted","secret":"p1anted p1anted","securitytoken":"p1anted","expires_at":"p1anted"}}"#;
    lab.service.always_for("securitykey", Step::Reply(Reply::json(200, planted)));
    let keys = lab.keys();
    let mut variables: Vec<_> = keys.iter().map(|(name, value)| (*name, value.as_str())).collect();
    variables.push(("RUST_LOG", "trace"));
    let mut process = Process::start(&lab.emulator.endpoint(), &variables).await;
    let mut client = client(&process.address).await;
    client.save_info(sample()).await.unwrap();
    let failed = process.line("temporary credentials refresh failed").await;
    let project = scm_emulator::SAMPLE_PROJECT;
    assert_eq!((&failed["source"], &failed["project_ids"]), (&"ecs_agency".into(), &project.into()), "{failed}");
    lab.service.always_for("securitykey", Step::Reply(Reply::json(503, "p1anted")));
    process.line("temporary credentials expired").await;
    lab.service.always_for("token", Step::Reply(Reply::json(500, "p1anted")));
    lab.wait_for_exchanges(lab.service.attempts() + 1).await;
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
