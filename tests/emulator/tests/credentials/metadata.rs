//! The metadata service: both versions, tokens and their TTL, and credentials that stay the same for hours.

use std::time::Duration;

use scm_emulator::{Metadata, Version};

use crate::services::{Ask, KEY_PATH, Lab, TOKEN_PATH, assert_credentials};

async fn token(lab: &Lab, ttl: &str) -> String {
    let answer = lab.answer(&Ask::token(ttl)).await;
    assert_eq!((answer.status, answer.header("Content-Type")), (200, "text/plain"), "{ttl}");
    String::from_utf8(answer.body).unwrap()
}

#[tokio::test]
async fn version_two_returns_the_same_credentials_until_they_expire_soon() {
    let lab = Lab::start(Metadata::default()).await;
    let token = token(&lab, "21600").await;
    let first = lab.answer(&Ask::key(Some(&token))).await.json();
    assert_credentials(&first["credential"], ["access", "secret", "securitytoken"]);
    assert_eq!(first["credential"]["expires_at"], "2022-08-10T04:05:06.000000Z");
    lab.clock.advance(Duration::from_secs(21_599));
    assert_eq!(lab.answer(&Ask::key(Some(&token))).await.json(), first);
    lab.clock.advance(Duration::from_secs(1));
    lab.assert_rejected(&Ask::key(Some(&token)), 401, "no token, an unknown one, or an expired one").await;

    lab.clock.advance(Duration::from_secs(17 * 3600));
    let token = self::token(&lab, "1").await;
    let next = lab.answer(&Ask::key(Some(&token))).await.json();
    assert_ne!(next["credential"]["access"], first["credential"]["access"]);
    assert_eq!(next["credential"]["expires_at"], "2022-08-11T03:05:06.000000Z");
}

#[tokio::test]
async fn version_one_needs_no_token() {
    for status in [404, 405, 503] {
        let lab = Lab::start(Metadata { version: Version::One(status), ..Metadata::default() }).await;
        lab.assert_rejected(&Ask::token("21600"), status, "version 1 has no tokens").await;
        assert_eq!(lab.answer(&Ask::key(None)).await.status, 200);
    }
}

#[tokio::test]
async fn other_requests_are_rejected() {
    let lab = Lab::start(Metadata::default()).await;
    let without_ttl = Ask::new("PUT", TOKEN_PATH);
    let with_body = Ask::token("60").with(|ask| ask.body = "{}".to_owned());
    let two =
        Ask::token("60").with(|ask| ask.headers.push(("x-metadata-token-ttl-seconds".to_owned(), "60".to_owned())));
    let ttls = ["", "0", "21601", "-1", "1h"].map(Ask::token);
    for request in ttls.into_iter().chain([without_ttl, with_body, two]) {
        lab.assert_rejected(&request, 400, "no TTL from 1 to 21600, or a body").await;
    }
    for request in [Ask::key(None), Ask::key(Some("unknown")), Ask::key(Some(""))] {
        lab.assert_rejected(&request, 401, "no token, an unknown one, or an expired one").await;
    }
    for (method, path) in [("GET", TOKEN_PATH), ("POST", TOKEN_PATH), ("PUT", KEY_PATH), ("POST", KEY_PATH)] {
        lab.assert_rejected(&Ask::new(method, path), 405, "another method").await;
    }
    lab.assert_rejected(&Ask::new("GET", "/openstack/latest/meta_data.json"), 404, "unknown path").await;
}

#[tokio::test]
async fn ecs_without_an_agency_has_no_credentials() {
    for version in [Version::One(404), Version::Two] {
        let lab = Lab::start(Metadata { version, agency: None, ..Metadata::default() }).await;
        let token = if version == Version::Two { Some(token(&lab, "60").await) } else { None };
        let answer = lab.assert_rejected(&Ask::key(token.as_deref()), 401, "the ECS has no agency").await;
        assert_eq!(answer.json()["message"], "Please configure Cloud Service Agency first");
    }
}
