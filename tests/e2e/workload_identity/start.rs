//! The first start: which source counts, what it is asked, and what SCM sees.

use std::time::Duration;

use scm_emulator::{Issue, Reply, SAMPLE_ACCESS_KEY, SAMPLE_SECRET_KEY, ServiceOptions, Step, TimeFormat, Tls};
use tokio::task::JoinSet;

use super::{EXPIRY, Lab, assert_no_credentials, credentials_status};
use crate::harness::{Gateway, METADATA_ENDPOINT, metadata_service, sample};

#[tokio::test]
async fn vendors_variables_are_enough_for_oidc() {
    let lab = Lab::sts().await;
    let mut variables = lab.variables();
    variables.push(("HUAWEICLOUD_OIDC_SESSION_NAME", "gateway-0".to_owned()));
    variables.push(("HUAWEICLOUD_OIDC_DURATION_SECONDS", "900".to_owned()));
    variables.push(("HUAWEICLOUD_OIDC_POLICY", r#"{"Version":"5.0"}"#.to_owned()));
    variables.push(("HUAWEICLOUD_OIDC_POLICY_IDS", "one, two".to_owned()));
    let gateway = lab.gateway(&variables).await;
    lab.assert_last_credentials_are_used(&gateway).await;

    let asked = lab.service.exchanges();
    assert_eq!((asked.len(), asked[0].method.as_str(), asked[0].rejection), (1, "POST", None));
    let body = asked[0].json();
    assert_eq!(body["agency_session_name"], "gateway-0");
    assert_eq!(body["duration_seconds"], 900);
    assert_eq!(body["policy"], r#"{"Version":"5.0"}"#);
    assert_eq!(body["policy_ids"], serde_json::json!(["one", "two"]));
    assert_eq!(asked[0].token(), Some(std::fs::read_to_string(lab.folder.path("token")).unwrap()));
    for header in ["authorization", "x-sdk-date", "x-security-token", "x-project-id"] {
        assert_eq!(asked[0].header(header), None, "the request is not signed");
    }
    assert_eq!(lab.exchanges(&gateway, "issued").await, 1);
    assert!((800.0..=900.0).contains(&gateway.metric::<f64>(EXPIRY).await));
    assert_eq!(credentials_status(&gateway).await["source"], "oidc");
}

#[tokio::test]
async fn keys_of_the_configuration_have_defaults() {
    let lab = Lab::sts().await;
    let gateway = lab.gateway(&lab.keys()).await;
    lab.assert_last_credentials_are_used(&gateway).await;
    let body = lab.service.exchanges()[0].json();
    assert_eq!(body["duration_seconds"], 3600);
    assert!((2..=128).contains(&body["agency_session_name"].as_str().unwrap().len()));
    assert_eq!((body.get("policy"), body.get("policy_ids")), (None, None));
}

#[tokio::test]
async fn pod_identity_agent_gets_the_token_as_it_is() {
    let lab = Lab::pod_identity().await;
    let token = lab.claims().encode();
    lab.folder.file("token", &format!(" \n{token}\r\n"));
    let gateway = lab.gateway(&lab.variables()).await;
    lab.assert_last_credentials_are_used(&gateway).await;
    let asked = lab.service.exchanges();
    assert_eq!((asked.len(), asked[0].rejection), (1, None));
    assert_eq!(asked[0].header("authorization"), Some(token.as_str()), "no Bearer, no whitespace");
    assert_eq!(asked[0].body, b"{}");
    assert_eq!(lab.exchanges(&gateway, "issued").await, 1);
}

#[tokio::test]
async fn pod_never_gets_the_agency_of_its_node() {
    let lab = Lab::pod_identity().await;
    let node = metadata_service(&lab.emulator.issuer()).await;
    let mut variables = lab.variables();
    variables.push((METADATA_ENDPOINT, node.endpoint()));
    let gateway = lab.gateway(&variables).await;
    lab.assert_last_credentials_are_used(&gateway).await;
    assert_eq!((lab.service.attempts(), node.connections()), (1, 0));
}

#[tokio::test]
async fn oidc_counts_before_an_access_key() {
    let lab = Lab::sts().await;
    let mut variables = lab.variables();
    variables.push(("HUAWEICLOUD_SDK_AK", SAMPLE_ACCESS_KEY.to_owned()));
    variables.push(("HUAWEICLOUD_SDK_SK", SAMPLE_SECRET_KEY.to_owned()));
    // A failing STS does not make the gateway fall through to the access key.
    lab.service.always(Step::Reply(Reply::json(500, "{}")));
    let gateway = {
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Gateway::with(&lab.emulator, &variables).await
    };
    lab.wait_for_outcome(&gateway, "failed", 1).await;
    assert_no_credentials(&lab, &gateway).await;
    lab.service.always(Step::Serve);
    lab.assert_last_credentials_are_used(&gateway).await;
}

#[tokio::test]
async fn waiting_calls_share_the_first_exchange() {
    let lab = Lab::sts().await;
    lab.service.pause();
    let gateway = lab.gateway(&lab.variables()).await;
    lab.wait_for_exchanges(1).await;
    assert_no_credentials(&lab, &gateway).await;
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let mut client = gateway.client.clone();
            tokio::spawn(async move { client.save_info(sample()).await })
        })
        .collect();
    tokio::task::yield_now().await;
    lab.service.resume();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(lab.service.attempts(), 1);
    assert!(lab.emulator.rejections().is_empty());
}

/// STS has the certificates of SCM: an unknown authority fails, and the reloaded file is used.
#[tokio::test]
async fn sts_is_verified_with_the_roots_of_scm() {
    let tls = Tls::generate();
    let lab = Lab::with_sts(ServiceOptions { tls: Some(tls.clone()), ..ServiceOptions::default() }).await;
    let mut variables = lab.variables();
    variables.push(("SCM_GATEWAY__UPSTREAM__CA_FILE", lab.folder.file("ca.pem", &Tls::generate().ca_pem())));
    let gateway = lab.gateway(&variables).await;
    lab.wait_for_outcome(&gateway, "failed", 1).await;
    assert!(lab.service.exchanges().is_empty(), "the token is not sent");
    assert_no_credentials(&lab, &gateway).await;
    lab.folder.file("ca.pem", &tls.ca_pem());
    lab.assert_last_credentials_are_used(&gateway).await;
}

/// The life of credentials is what the service says, in any form of RFC 3339.
#[tokio::test]
async fn every_form_of_an_expiration_is_read() {
    let mut cases = JoinSet::new();
    for format in [
        TimeFormat::Utc(0),
        TimeFormat::Utc(1),
        TimeFormat::Utc(3),
        TimeFormat::Utc(6),
        TimeFormat::Utc(9),
        TimeFormat::Offset(3, 0),
        TimeFormat::Offset(0, 480),
        TimeFormat::Offset(9, -690),
    ] {
        cases.spawn(async move {
            let lab = Lab::sts().await;
            lab.service.script(Step::Issue(Issue::Format(format)));
            let gateway = lab.gateway(&lab.variables()).await;
            lab.assert_last_credentials_are_used(&gateway).await;
            assert!((3500.0..=3600.0).contains(&gateway.metric::<f64>(EXPIRY).await), "{format:?}");
        });
    }
    for format in [TimeFormat::Number, TimeFormat::NumberText] {
        cases.spawn(async move {
            let lab = Lab::sts().await;
            lab.service.script(Step::Issue(Issue::Format(format)));
            let gateway = lab.gateway(&lab.variables()).await;
            lab.wait_for_outcome(&gateway, "failed", 1).await;
            lab.assert_last_credentials_are_used(&gateway).await;
        });
    }
    tokio::time::timeout(Duration::from_secs(60), cases.join_all()).await.unwrap();
}
