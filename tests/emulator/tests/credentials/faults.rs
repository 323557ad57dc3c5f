//! The script of the services: each fault that a client has to survive.

use std::time::Duration;

use scm_emulator::{Claims, Field, Issue, Metadata, PodIdentity, Reply, Step, Sts, TimeFormat};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::services::{Ask, Lab};

/// The names of the fields in a response of STS.
const FIELDS: [(Field, &str); 4] = [
    (Field::AccessKey, "access_key_id"),
    (Field::SecretKey, "secret_access_key"),
    (Field::SecurityToken, "security_token"),
    (Field::Expiration, "expiration"),
];

#[tokio::test]
async fn fields_can_be_missing_empty_or_null() {
    let lab = Lab::start(Sts::default()).await;
    let request = Ask::sts(&lab.sts_request());
    for (field, name) in FIELDS {
        for (issue, expected) in [
            (Issue::Without(field), None),
            (Issue::Empty(field), Some(json!(""))),
            (Issue::Null(field), Some(Value::Null)),
        ] {
            lab.service.script(Step::Issue(issue));
            let body = lab.answer(&request).await.json();
            assert_eq!(body["credentials"].get(name), expected.as_ref(), "{name}");
            assert!(FIELDS.iter().all(|(_, other)| *other == name || body["credentials"][other].is_string()));
        }
    }
    lab.service.script(Step::Issue(Issue::Nothing));
    let body = lab.answer(&request).await.json();
    assert_eq!((body.get("credentials"), &body["audience"]), (None, &json!("sts.made-up")));
}

#[tokio::test]
async fn credentials_can_be_short_expired_or_repeated() {
    let lab = Lab::start(Sts::default()).await;
    let request = Ask::sts(&lab.sts_request());
    lab.service.scripts([
        Step::Issue(Issue::Valid(Duration::from_secs(4))),
        Step::Issue(Issue::Expired(Duration::from_secs(60))),
        Step::Issue(Issue::Again),
    ]);
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(lab.answer(&request).await.json()["credentials"].clone());
    }
    assert_eq!(answers[0]["expiration"], "2022-08-09T04:05:10.000Z");
    assert_eq!(answers[1]["expiration"], "2022-08-09T04:04:06.000Z");
    assert_eq!(answers[2], answers[1]);
    assert_eq!(lab.issuer.issued().len(), 2);
    lab.service.set_validity(Some(Duration::from_secs(7)));
    assert_eq!(lab.answer(&request).await.json()["credentials"]["expiration"], "2022-08-09T04:05:13.000Z");
    lab.service.set_validity(None);
    assert_eq!(lab.answer(&request).await.json()["credentials"]["expiration"], "2022-08-09T05:05:06.000Z");
}

#[tokio::test]
async fn expirations_can_have_any_form() {
    let lab = Lab::start(Metadata::default()).await;
    lab.clock.advance(Duration::new(0, 158_123_456));
    let token = String::from_utf8(lab.answer(&Ask::token("60")).await.body).unwrap();
    for (format, expected) in [
        (TimeFormat::Utc(3), json!("2022-08-10T04:05:06.158Z")),
        (TimeFormat::Utc(0), json!("2022-08-10T04:05:06Z")),
        (TimeFormat::Utc(9), json!("2022-08-10T04:05:06.158123456Z")),
        (TimeFormat::Offset(3, 0), json!("2022-08-10T04:05:06.158+00:00")),
        (TimeFormat::Offset(3, 480), json!("2022-08-10T12:05:06.158+08:00")),
        (TimeFormat::Number, json!(1_660_104_306_158_u64)),
        (TimeFormat::NumberText, json!("1660104306158")),
    ] {
        lab.service.script(Step::Issue(Issue::Format(format)));
        let body = lab.answer(&Ask::key(Some(&token))).await.json();
        assert_eq!(body["credential"]["expires_at"], expected, "{format:?}");
    }
}

#[tokio::test]
async fn scripted_responses_replace_the_service() {
    let lab = Lab::start(PodIdentity::default()).await;
    let request = Ask::pod(&Claims::pod_identity(lab.clock.now()).encode());
    let slow = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n".to_vec();
    lab.service.scripts([
        Step::Reply(Reply::json(429, "{}").header("Retry-After", "7")),
        Step::Reply(Reply::new(200).header("Content-Type", "text/html").body("<html>")),
        Step::Reply(Reply::new(302).header("Location", "/elsewhere")),
        Step::Drip { head: slow, bytes: b"{}".to_vec(), every: Duration::from_millis(1) },
        Step::Close,
        Step::Reset,
    ]);
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(lab.send(&request).await.map(|answer| answer.status));
    }
    assert_eq!(statuses, [Some(429), Some(200), Some(302), Some(200), None, None]);
    lab.service.script(Step::Hang);
    assert!(timeout(Duration::from_millis(50), lab.send(&request)).await.is_err());
    assert_eq!((lab.service.steps_left(), lab.service.attempts()), (0, 7));
    assert!(lab.issuer.issued().is_empty());
    assert!(lab.service.exchanges().iter().all(|exchange| exchange.rejection.is_none()), "the requests are valid");
}

#[tokio::test]
async fn steps_can_be_of_one_request_and_can_stay() {
    let lab = Lab::start(Metadata::default()).await;
    let fail = |status| Step::Reply(Reply::new(status));
    lab.service.always(fail(500));
    lab.service.always_for("securitykey", fail(502));
    lab.service.script_for("token", fail(503));
    for status in [503, 500, 500] {
        assert_eq!(lab.answer(&Ask::token("60")).await.status, status);
    }
    assert_eq!(lab.answer(&Ask::key(None)).await.status, 502);
    lab.service.always_for("securitykey", Step::Serve);
    assert_eq!(lab.answer(&Ask::key(None)).await.status, 500);
    lab.service.always(Step::Serve);
    assert_eq!(lab.answer(&Ask::token("60")).await.status, 200);
}

#[tokio::test]
async fn paused_service_answers_once_it_resumes() {
    let lab = Lab::start(Sts::default()).await;
    let request = Ask::sts(&lab.sts_request());
    lab.service.pause();
    let answer = lab.answer(&request);
    tokio::pin!(answer);
    tokio::select! {
        _ = &mut answer => panic!("the service is paused"),
        () = lab.service.wait_for_attempts(1) => {}
    }
    lab.service.resume();
    assert_eq!(answer.await.status, 200);
}

#[tokio::test]
async fn debug_output_has_no_token_or_secret() {
    let lab = Lab::start(Sts::default()).await;
    let token = Claims::oidc(lab.clock.now()).encode();
    let mut request = lab.sts_request();
    request["id_token"] = token.clone().into();
    lab.answer(&Ask::sts(&request)).await;
    let exchange = lab.service.exchanges().pop().unwrap();
    assert_eq!(exchange.token().as_deref(), Some(token.as_str()));
    assert_eq!(exchange.json()["agency_session_name"], "scm-gateway-0");
    let account = lab.issuer.issued().pop().unwrap().account;
    let shown = format!("{exchange:?} {:?} {:?}", lab.issuer, lab.service);
    for secret in [token, account.secret_key, account.security_token.unwrap()] {
        assert!(!shown.contains(&secret), "{shown}");
    }
}
