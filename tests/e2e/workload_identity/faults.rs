//! Faults of a service: nothing that it returns is used, the current credentials stay in use, and the next exchange works.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use scm_emulator::{Emulator, Field, Issue, Reply, Step, Then};
use tokio::task::JoinSet;

use super::Lab;
use crate::harness::{emulator, sample};

/// The number of gateways that a test runs at the same time.
const MAX_GATEWAYS: usize = 6;

/// The faults, and the outcome that the metrics count.
fn faults(elsewhere: &Emulator) -> Vec<(&'static str, Step, &'static str)> {
    let json = |status, body: &str| Step::Reply(Reply::json(status, body));
    let location = format!("{}/v5/agencies/assume-with-oidc", elsewhere.endpoint());
    let redirect = |status| Step::Reply(Reply::new(status).header("Location", location.clone()));
    let error = r#"{"error_code":"STS5.1001","error_msg":"denied","encoded_authorization_message":"x"}"#;
    let large = format!("{}{{}}", " ".repeat(64 * 1024));
    let fields = [Field::AccessKey, Field::SecretKey, Field::SecurityToken, Field::Expiration];
    let mut faults = vec![
        ("400", json(400, error), "rejected"),
        ("401", json(401, error), "rejected"),
        ("403", json(403, error), "rejected"),
        ("404", json(404, ""), "rejected"),
        ("429", json(429, error), "failed"),
        ("429 with Retry-After", Step::Reply(Reply::json(429, "{}").header("Retry-After", "1")), "failed"),
        ("500", json(500, error), "failed"),
        ("502 with HTML", Step::Reply(Reply::new(502).body("<html>")), "failed"),
        ("302", redirect(302), "failed"),
        ("307", redirect(307), "failed"),
        ("201", json(201, "{}"), "failed"),
        ("204", Step::Reply(Reply::new(204)), "failed"),
        ("200 with HTML", Step::Reply(Reply::new(200).body("<html>login</html>")), "failed"),
        ("200 and empty", json(200, ""), "failed"),
        ("200 and too large", json(200, &large), "failed"),
        ("200 without credentials", Step::Issue(Issue::Nothing), "failed"),
        ("expired", Step::Issue(Issue::Expired(Duration::from_secs(1))), "failed"),
        ("closed", Step::Close, "failed"),
        ("reset", Step::Reset, "failed"),
        (
            "half a response",
            Step::RawThen(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_vec(), Then::Cut),
            "failed",
        ),
        ("no HTTP", Step::Raw(b"nonsense\r\n\r\n".to_vec()), "failed"),
    ];
    for field in fields {
        faults.push(("missing field", Step::Issue(Issue::Without(field)), "failed"));
        faults.push(("empty field", Step::Issue(Issue::Empty(field)), "failed"));
        faults.push(("null", Step::Issue(Issue::Null(field)), "failed"));
    }
    faults
}

/// Starts a service that has only this fault, and then none.
async fn recovers(lab: Lab, name: &'static str, fault: Step, outcome: &'static str) {
    let source = lab.source;
    lab.service.always(fault);
    let gateway = lab.gateway(&lab.variables()).await;
    lab.wait_for_exchanges(1).await;
    lab.wait_for_outcome(&gateway, outcome, 1).await;
    assert_eq!(lab.exchanges(&gateway, "issued").await, 0, "{source}, {name}");
    assert_eq!(lab.emulator.attempts(), 0, "{source}, {name}");
    lab.service.always(Step::Serve);
    if outcome == "rejected" {
        lab.replace_token(&lab.claims());
    }
    lab.assert_last_credentials_are_used(&gateway).await;
    assert!(lab.emulator.rejections().is_empty(), "{source}, {name}");
}

/// Asserts that no fault of a service is used, and that the gateway recovers from each.
async fn assert_recovery<L: Future<Output = Lab>>(lab: impl Fn() -> L + Copy) {
    let elsewhere = emulator().await;
    let cases = stream::iter(faults(&elsewhere));
    cases
        .for_each_concurrent(MAX_GATEWAYS, |(name, fault, outcome)| async move {
            recovers(lab().await, name, fault, outcome).await;
        })
        .await;
    assert_eq!(elsewhere.connections(), 0, "redirects are not followed");
}

#[tokio::test]
async fn no_fault_of_sts_is_used() {
    assert_recovery(Lab::sts).await;
}

#[tokio::test]
async fn no_fault_of_the_pod_identity_agent_is_used() {
    assert_recovery(Lab::pod_identity).await;
}

/// Credentials that are valid for 12 seconds are refreshed after 8.
#[tokio::test]
async fn current_credentials_stay_in_use() {
    let mut cases = JoinSet::new();
    for (fault, outcome) in [
        (Step::Reply(Reply::json(403, "{}")), "rejected"),
        (Step::Reply(Reply::json(503, "{}")), "failed"),
        (Step::Issue(Issue::Without(Field::SecurityToken)), "failed"),
        (Step::Close, "failed"),
    ] {
        for lab in [Lab::sts().await, Lab::pod_identity().await] {
            let fault = fault.clone();
            cases.spawn(async move {
                lab.service.set_validity(Some(Duration::from_secs(12)));
                let gateway = lab.gateway(&lab.variables()).await;
                lab.assert_last_credentials_are_used(&gateway).await;
                lab.service.always(fault);
                let first = lab.issued().account.access_key;
                lab.wait_for_exchanges(2).await;
                lab.wait_for_outcome(&gateway, outcome, 1).await;
                gateway.save(sample()).await.unwrap();
                assert_eq!(lab.emulator.journal().pop().unwrap().access_key, first);
                assert_eq!(lab.exchanges(&gateway, "issued").await, 1);
                assert!(lab.emulator.rejections().is_empty());
            });
        }
    }
    cases.join_all().await;
}

/// An exchange ends after 10 s at STS, and after 5 s at the agent, also if the response trickles in.
#[tokio::test]
async fn slow_service_is_a_failed_exchange() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n".to_vec();
    let drip = Step::Drip { head, bytes: vec![b' '; 1000], every: Duration::from_millis(100) };
    let mut cases = JoinSet::new();
    for step in [Step::Hang, drip] {
        for (lab, seconds) in [(Lab::sts().await, 10), (Lab::pod_identity().await, 5)] {
            let step = step.clone();
            cases.spawn(async move {
                lab.service.script(step);
                let started = tokio::time::Instant::now();
                let gateway = lab.gateway(&lab.variables()).await;
                lab.wait_for_outcome(&gateway, "failed", 1).await;
                let seconds = Duration::from_secs(seconds);
                assert!((seconds..seconds + Duration::from_secs(4)).contains(&started.elapsed()), "{}", lab.source);
                lab.assert_last_credentials_are_used(&gateway).await;
            });
        }
    }
    cases.join_all().await;
}

/// A token file that is missing or empty later is a failed exchange.
#[tokio::test]
async fn unreadable_token_file_keeps_the_current_credentials() {
    let mut cases = JoinSet::new();
    for content in [None, Some(""), Some(" \n"), Some("two words")] {
        cases.spawn(async move {
            let lab = Lab::sts().await;
            lab.service.set_validity(Some(Duration::from_secs(6)));
            let gateway = lab.gateway(&lab.variables()).await;
            lab.assert_last_credentials_are_used(&gateway).await;
            let token = std::fs::read_to_string(lab.folder.path("token")).unwrap();
            match content {
                None => std::fs::remove_file(lab.folder.path("token")).unwrap(),
                Some(text) => drop(lab.folder.file("token", text)),
            }
            lab.wait_for_outcome(&gateway, "failed", 1).await;
            gateway.save(sample()).await.unwrap();
            assert_eq!(lab.service.attempts(), 1, "nothing is sent without a token");
            lab.folder.file("token", &token);
            lab.wait_for_exchanges(2).await;
            lab.assert_last_credentials_are_used(&gateway).await;
        });
    }
    cases.join_all().await;
}
