//! STS: fields, tokens, the trust policy, and the credentials.

use std::time::Duration;

use scm_emulator::{Agency, Claims, Provider, Sts};
use serde_json::{Value, json};

use crate::services::{Ask, Lab, assert_credentials};

#[tokio::test]
async fn each_exchange_issues_new_credentials() {
    let lab = Lab::start(Sts::default()).await;
    let answer = lab.answer(&Ask::sts(&lab.sts_request())).await;
    assert_eq!((answer.status, answer.header("Date")), (200, "Tue, 09 Aug 2022 04:05:06 GMT"));
    let body = answer.json();
    let credentials = &body["credentials"];
    assert_credentials(credentials, ["access_key_id", "secret_access_key", "security_token"]);
    assert_eq!(credentials["expiration"], "2022-08-09T05:05:06.000Z", "an hour by default");
    let agency = "sts::fedcba9876543210fedcba9876543210::assumed-agency:scm-gateway/scm-gateway-0";
    assert_eq!(body["assumed_agency"]["urn"], agency);
    assert_eq!(body["subject_from_id_token"], "system:serviceaccount:scm:scm-gateway");
    assert_eq!(body["audience"], "sts.made-up");

    lab.clock.advance(Duration::from_millis(52));
    let mut request = lab.sts_request();
    request["duration_seconds"] = 900.into();
    let next = lab.answer(&Ask::sts(&request)).await.json();
    assert_ne!(next["credentials"]["access_key_id"], credentials["access_key_id"]);
    assert_eq!(next["credentials"]["expiration"], "2022-08-09T04:20:06.052Z");
    let issued = lab.issuer.issued();
    assert_eq!(issued.len(), 2);
    assert_eq!(issued[1].account.access_key, next["credentials"]["access_key_id"]);
    assert_eq!(issued[1].expires_at, lab.clock.now() + Duration::from_secs(900));
}

#[tokio::test]
async fn fields_at_their_limits_are_accepted() {
    let mut lab_sts = Sts::default();
    lab_sts.agencies[0].subjects = vec!["system:serviceaccount:scm:*".to_owned()];
    let lab = Lab::start(lab_sts).await;
    let statement = |length: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(length - 8));
    let fields = [
        ("agency_session_name", json!("ab")),
        ("agency_session_name", json!(format!("a_+=,.@-{}", "x".repeat(120)))),
        ("duration_seconds", json!(900)),
        ("duration_seconds", json!(43_200)),
        ("policy", json!("{}")),
        ("policy", json!(statement(4096))),
        ("policy_ids", json!([])),
        ("policy_ids", json!(vec!["x".repeat(64); 20])),
        ("policy_ids", json!(["SCMReadOnlyPolicy", "a_b-c"])),
    ];
    for (field, value) in fields {
        let mut request = lab.sts_request();
        request[field] = value;
        assert_eq!(lab.answer(&Ask::sts(&request)).await.status, 200, "{field}");
    }
    let wide = Claims { subject: "system:serviceaccount:scm:another".to_owned(), ..Claims::oidc(lab.clock.now()) };
    let mut request = lab.sts_request();
    request["id_token"] = wide.encode().into();
    assert_eq!(lab.answer(&Ask::sts(&request)).await.status, 200, "the trust policy has a wildcard");
}

#[tokio::test]
async fn invalid_fields_are_rejected() {
    let lab = Lab::start(Sts::default()).await;
    let required = ["provider_urn", "agency_urn", "agency_session_name", "id_token"];
    let missing = required.map(|field| (field, Value::Null));
    let values = [
        ("provider_urn", json!(1)),
        ("provider_urn", json!("iam:account:oidcProvider:k8s")),
        ("provider_urn", json!(format!("iam::account:oidcProvider:{}", "x".repeat(1500)))),
        ("provider_urn", json!("iam::acc%unt:oidcProvider:k8s")),
        ("agency_urn", json!("")),
        ("agency_urn", json!("x".repeat(1501))),
        ("agency_session_name", json!("a")),
        ("agency_session_name", json!("x".repeat(129))),
        ("agency_session_name", json!("a b")),
        ("agency_session_name", json!("a/b")),
        ("id_token", json!("a.b")),
        ("id_token", json!("x".repeat(20_001))),
        ("id_token", json!(["a.b.c"])),
        ("duration_seconds", json!(899)),
        ("duration_seconds", json!(43_201)),
        ("duration_seconds", json!("3600")),
        ("duration_seconds", json!(3600.5)),
        ("policy", json!({"Version": "5.0"})),
        ("policy", json!("")),
        ("policy", json!("[]")),
        ("policy", json!(format!("{{\"a\":\"{}\"}}", "x".repeat(4089)))),
        ("policy_ids", json!("SCMReadOnlyPolicy")),
        ("policy_ids", json!([{"id": "SCMReadOnlyPolicy"}])),
        ("policy_ids", json!(["x".repeat(65)])),
        ("policy_ids", json!([""])),
        ("policy_ids", json!(["a.b"])),
        ("policy_ids", json!(vec!["x"; 21])),
    ];
    for (field, value) in missing.into_iter().chain(values) {
        let mut request = lab.sts_request();
        if value.is_null() {
            request.as_object_mut().unwrap().remove(field);
        } else {
            request[field] = value;
        }
        let body = lab.assert_rejected(&Ask::sts(&request), 400, &format!("invalid {field}")).await.json();
        assert_eq!(body["error_code"], "STS5.XXXX");
        assert_eq!(body["request_id"].as_str().unwrap().len(), 32);
    }
}

#[tokio::test]
async fn other_requests_than_json_by_post_are_rejected() {
    let lab = Lab::start(Sts::default()).await;
    let valid = Ask::sts(&lab.sts_request());
    let cases = [
        (valid.clone().with(|ask| ask.method = "PUT"), 405, "the method is not POST"),
        (valid.clone().with(|ask| ask.target = "/v5/agencies/assume".to_owned()), 404, "unknown path"),
        (valid.clone().with(|ask| ask.target.push_str("?x=1")), 404, "unknown path"),
        (valid.clone().header("Content-Type", "text/plain"), 400, "the content type is not application/json"),
        (valid.clone().with(|ask| ask.body.push('}')), 400, "the body is not JSON, or has a key twice"),
        (
            valid.clone().with(|ask| ask.body = ask.body.replacen('{', "{\"id_token\":\"a.b.c\",", 1)),
            400,
            "the body is not JSON, or has a key twice",
        ),
        (valid.clone().with(|ask| ask.body = "[]".to_owned()), 400, "the body is not an object"),
        (
            valid.clone().with(|ask| ask.body = ask.body.replacen('{', "{\"idToken\":\"a.b.c\",", 1)),
            400,
            "the body has an unknown key",
        ),
    ];
    for (request, status, reason) in cases {
        lab.assert_rejected(&request, status, reason).await;
    }
    // The vendor's service client signs with any key, and adds a charset.
    let signed = valid
        .header("Content-Type", "application/json;charset=UTF-8")
        .header("X-Sdk-Date", "20010101T000000Z")
        .header("Authorization", "SDK-HMAC-SHA256 Access=ANY, SignedHeaders=host, Signature=00");
    assert_eq!(lab.answer(&signed).await.status, 200, "a signature is ignored");
}

#[tokio::test]
async fn tokens_are_checked_against_provider_and_clock() {
    let lab = Lab::start(Sts::default()).await;
    let now = lab.clock.now();
    let second = Duration::from_secs(1);
    let claims = || Claims::oidc(now);
    let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    for claims in [
        Claims { expires_at: now + second, ..claims() },
        Claims { not_before: None, ..claims() },
        Claims { audience: list(&["another", "sts.made-up"]), ..claims() },
    ] {
        let mut request = lab.sts_request();
        request["id_token"] = claims.encode().into();
        assert_eq!(lab.answer(&Ask::sts(&request)).await.status, 200, "{claims:?}");
    }
    let denied = "access denied: no identity-based policy allows sts:agencies:assumeWithOIDC";
    let foreign = "the issuer of the id token is not the provider's";
    for (claims, status, code, reason) in [
        (Claims { issuer: "https://other".to_owned(), ..claims() }, 400, "STS5.XXXX", foreign),
        (Claims { expires_at: now, ..claims() }, 400, "STS5.XXXX", "the id token has expired"),
        (Claims { not_before: Some(now + second), ..claims() }, 400, "STS5.XXXX", "the id token is not yet valid"),
        (Claims { audience: list(&["another"]), ..claims() }, 400, "STS5.2001", "invalid audience"),
        (Claims { audience: Vec::new(), ..claims() }, 400, "STS5.2001", "invalid audience"),
        (Claims { subject: "system:serviceaccount:scm:other".to_owned(), ..claims() }, 403, "STS5.1001", denied),
    ] {
        let mut request = lab.sts_request();
        request["id_token"] = claims.encode().into();
        let body = lab.assert_rejected(&Ask::sts(&request), status, reason).await.json();
        assert_eq!(body["error_code"], code, "{claims:?}");
        assert_eq!(body["encoded_authorization_message"].is_string(), status == 403);
    }
    let mut request = lab.sts_request();
    request["id_token"] = "a.b.c".into();
    lab.assert_rejected(&Ask::sts(&request), 400, "the id token is malformed").await;
}

#[tokio::test]
async fn provider_agency_and_trust_policy_decide() {
    let other = "iam::fedcba9876543210fedcba9876543210:oidcProvider:other";
    let sts = Sts {
        providers: vec![Provider::default(), Provider { urn: other.to_owned(), ..Provider::default() }],
        agencies: vec![
            Agency { max_duration: Duration::from_secs(3600), ..Agency::default() },
            Agency { urn: "iam::a:agency:audience".to_owned(), audiences: vec!["x".to_owned()], ..Agency::default() },
        ],
    };
    let lab = Lab::start(sts).await;
    let denied = "access denied: no identity-based policy allows sts:agencies:assumeWithOIDC";
    for (field, value, status, reason) in [
        ("provider_urn", json!("iam::a:oidcProvider:unknown"), 404, "oidc provider not found"),
        ("provider_urn", json!(other), 403, denied),
        ("agency_urn", json!("iam::a:agency:unknown"), 404, "agency not found"),
        ("agency_urn", json!("iam::a:agency:audience"), 403, denied),
        ("duration_seconds", json!(3601), 400, "duration_seconds exceeds the agency's"),
    ] {
        let mut request = lab.sts_request();
        request[field] = value;
        lab.assert_rejected(&Ask::sts(&request), status, reason).await;
    }
    let mut request = lab.sts_request();
    request["duration_seconds"] = 3600.into();
    assert_eq!(lab.answer(&Ask::sts(&request)).await.status, 200);
}
