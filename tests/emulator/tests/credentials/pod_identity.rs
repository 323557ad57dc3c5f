//! The pod identity agent: its token, its path, and the responses for both kinds of agencies.

use std::time::Duration;

use scm_emulator::{Association, Claims, PodIdentity};

use crate::services::{Ask, Lab, assert_credentials};

#[tokio::test]
async fn each_exchange_issues_new_credentials() {
    let plain = Association { service_account: "plain".to_owned(), trust_agency: None, ..Association::default() };
    let agent = PodIdentity {
        target: "/agent?pod=1".to_owned(),
        associations: vec![Association::default(), plain],
        ..PodIdentity::default()
    };
    let lab = Lab::start(agent).await;
    assert_eq!(lab.service.full_uri(), format!("{}/agent?pod=1", lab.service.endpoint()));
    let claims = Claims::pod_identity(lab.clock.now());
    let plain = Claims { subject: "system:serviceaccount:scm:plain".to_owned(), ..claims.clone() };
    let request = |claims: &Claims| Ask::pod(&claims.encode()).with(|ask| ask.target = "/agent?pod=1".to_owned());
    let body = lab.answer(&request(&claims)).await.json();
    assert_credentials(&body["credentials"], ["accessKeyId", "secretAccessKey", "securityToken"]);
    assert_eq!(body["credentials"]["expiration"], "2022-08-09T05:05:06.000Z");
    assert_eq!(body["audience"], "service.cce.pods");
    assert!(body["assumedAgency"]["urn"].as_str().unwrap().contains(":assumed-agency:scm-gateway/cce-"));
    assert_eq!(body["subject"]["serviceAccount"], "scm-gateway");

    let of_plain_agency = lab.answer(&request(&plain)).await.json();
    assert_eq!((&of_plain_agency["audience"], &of_plain_agency["assumedAgency"]), (&().into(), &().into()));
    assert_ne!(of_plain_agency["credentials"]["accessKeyId"], body["credentials"]["accessKeyId"]);
    assert_eq!(lab.issuer.issued().len(), 2);
}

#[tokio::test]
async fn other_requests_are_rejected() {
    let lab = Lab::start(PodIdentity::default()).await;
    let now = lab.clock.now();
    let claims = || Claims::pod_identity(now);
    let token = claims().encode();
    let of = |claims: Claims| Ask::pod(&claims.encode());
    let valid = Ask::pod(&token);
    let second = Duration::from_secs(1);
    let foreign = "the token is of another issuer or audience";
    let expired = "the token has expired, or is not yet valid";
    let cases = [
        (valid.clone().with(|ask| ask.method = "GET"), 405, "the method is not POST"),
        (valid.clone().with(|ask| ask.target = "/".to_owned()), 404, "unknown path"),
        (
            valid.clone().with(|ask| ask.headers.retain(|(name, _)| name != "Authorization")),
            401,
            "no Authorization, or two",
        ),
        (
            valid.clone().with(|ask| ask.headers.push(("authorization".to_owned(), token.clone()))),
            401,
            "no Authorization, or two",
        ),
        (Ask::pod(&format!("Bearer {token}")), 401, "Authorization is not a token"),
        (Ask::pod("a"), 401, "Authorization is not a token"),
        (of(Claims { issuer: "https://other".to_owned(), ..claims() }), 401, foreign),
        (of(Claims::oidc(now)), 401, foreign),
        (of(Claims { expires_at: now, ..claims() }), 401, expired),
        (of(Claims { not_before: Some(now + second), ..claims() }), 401, expired),
        (
            of(Claims { subject: "system:serviceaccount:scm:other".to_owned(), ..claims() }),
            404,
            "no association for the service account",
        ),
        (valid.clone().with(|ask| ask.body.clear()), 400, "the body is not an empty JSON object"),
        (
            valid.clone().with(|ask| ask.body = "{\"token\":\"\"}".to_owned()),
            400,
            "the body is not an empty JSON object",
        ),
        (valid.clone().header("Content-Type", "text/plain"), 400, "the body is not an empty JSON object"),
    ];
    for (request, status, reason) in cases {
        let body = lab.assert_rejected(&request, status, reason).await.json();
        assert_eq!(body["error_code"], "CCE.XXXX", "{reason}");
    }
    assert_eq!(lab.answer(&valid).await.status, 200);
}
