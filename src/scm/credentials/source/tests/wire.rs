//! Replays `tests/credentials_wire.json`: the requests that the vendor's SDK sends, and responses to them.

use std::time::Duration;

use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::{
    MetadataService, OidcFederation, PodIdentityAgent, World,
    server::{Received, Server, response},
};
use crate::{
    config,
    scm::credentials::source::{Failure, FailureKind, Source as _, TemporaryCredentials},
};

const WIRE: &str = include_str!("../../../../../tests/credentials_wire.json");

/// The problem in each case without credentials, by provider and case. The SDK accepts some of them.
const PROBLEMS: [(&str, &str, FailureKind, &str); 27] = [
    (
        "oidc",
        "empty session name variable",
        FailureKind::Rejected,
        "STS responded 400 (STS5.XXXX): the token may have expired, or `duration` may exceed the limit of the agency: `scm-gateway --check` shows both",
    ),
    (
        "oidc",
        "temporary key and security token as the reply names them in other styles",
        FAILED,
        "the response of STS has no credentials",
    ),
    (
        "oidc",
        "expired token refused",
        FailureKind::Rejected,
        "STS responded 400 (STS5.XXXX): the token may have expired, or `duration` may exceed the limit of the agency: `scm-gateway --check` shows both",
    ),
    (
        "oidc",
        "trust policy does not match",
        FailureKind::Rejected,
        "STS responded 403 (STS5.1001): the trust policy of the agency does not allow the token: compare its oidc:iss, \
         oidc:aud and oidc:sub with iss, aud and sub in the output of `scm-gateway --check`",
    ),
    (
        "oidc",
        "audience is not a client id of the provider",
        FailureKind::Rejected,
        "STS responded 400 (STS5.2001): aud of the token, which `scm-gateway --check` shows, is not a client id of the OIDC \
         provider in IAM",
    ),
    (
        "oidc",
        "provider or agency unknown",
        FailureKind::Rejected,
        "STS responded 404 (STS5.XXXX): check provider_urn and agency_urn",
    ),
    ("oidc", "throttled", FAILED, "STS responded 429 (APIG.0308)"),
    ("oidc", "5xx", FAILED, "STS responded 500 (STS5.XXXX)"),
    ("oidc", "5xx with HTML", FAILED, "STS responded 502"),
    ("oidc", "connection closed", FAILED, "STS does not respond: connection closed"),
    ("oidc", "redirect", FAILED, "STS responded 302: redirects are not followed"),
    ("oidc", "200 with HTML", FAILED, "the response of STS has no credentials"),
    ("oidc", "200 without credentials", FAILED, "the response of STS has no credentials"),
    ("oidc", "200 without security token", FAILED, "the response of STS has no credentials"),
    ("oidc", "200 with an empty access key", FAILED, "the access key in the response of STS is empty"),
    (
        "pod identity",
        "401",
        FailureKind::Rejected,
        "the pod identity agent responded 401 (CCE.XXXX): check the token with `scm-gateway --check`: it may have expired",
    ),
    (
        "pod identity",
        "403",
        FailureKind::Rejected,
        "the pod identity agent responded 403 (CCE.XXXX): check that a pod identity association names the namespace and \
         service account of the pod",
    ),
    (
        "pod identity",
        "404",
        FailureKind::Rejected,
        "the pod identity agent responded 404 (CCE.XXXX): check that a pod identity association names the namespace and \
         service account of the pod",
    ),
    ("pod identity", "5xx", FAILED, "the pod identity agent responded 503 (CCE.XXXX)"),
    ("pod identity", "malformed: not JSON", FAILED, "the response of the pod identity agent has no credentials"),
    ("pod identity", "malformed: no credentials", FAILED, "the response of the pod identity agent has no credentials"),
    ("pod identity", "malformed: null", FAILED, "the response of the pod identity agent has no credentials"),
    ("pod identity", "redirect", FAILED, "the pod identity agent responded 302: redirects are not followed"),
    (
        "pod identity",
        "redirect to another host",
        FAILED,
        "the pod identity agent responded 307: redirects are not followed",
    ),
    ("pod identity", "connection closed", FAILED, "the pod identity agent does not respond: connection closed"),
    (
        "metadata",
        "no agency",
        FailureKind::Rejected,
        "the metadata service responded 401: check that the ECS has an agency",
    ),
    (
        "metadata",
        "no key: 500 to the request for a token",
        FAILED,
        "the metadata service responded 500: no token was issued",
    ),
];

const FAILED: FailureKind = FailureKind::Failed { retry_after: None };

/// Cases of other requests than ours: signed, and through a proxy.
const SKIPPED: [&str; 2] =
    ["the service client of huaweicloudsdksts, with some key", "through a proxy of the environment"];

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} in {value}"))
}

/// Returns the bytes of a reply; none if the connection is closed.
fn bytes(reply: &Value) -> String {
    if reply["status"] == 0 {
        return String::new();
    }
    let headers = reply["headers"].as_object().unwrap();
    let headers: String =
        headers.iter().map(|(name, value)| format!("{name}: {}\r\n", value.as_str().unwrap())).collect();
    response(reply["status"].as_u64().unwrap() as u16, &headers, text(reply, "body"))
}

/// Asserts that a request is that of the SDK, except for the headers that say who sends it.
fn assert_request(received: &Received, expected: &Value, case: &str) {
    assert_eq!(received.line, format!("{} {}", text(expected, "method"), text(expected, "path")), "{case}");
    let json = |body: &str| serde_json::from_str::<Value>(body).ok();
    assert_eq!(json(&received.body), json(expected["body"].as_str().unwrap_or_default()), "{case}");
    for name in ["content-type", "authorization", "x-metadata-token", "x-sdk-date", "cookie"] {
        assert_eq!(received.header(name), expected["headers"][name].as_str(), "{case}: {name}");
    }
    let has_ttl = expected["headers"].get("x-metadata-token-ttl-seconds").is_some();
    assert_eq!(received.header("x-metadata-token-ttl-seconds"), has_ttl.then_some("60"), "{case}");
    let no_body = expected["headers"].get("content-length").is_none();
    assert_eq!(received.header("content-length").is_none(), no_body, "{case}");
}

/// Plays the exchanges of a case, and returns the result and the requests.
async fn play(provider: &str, exchanges: &[Value]) -> (Result<TemporaryCredentials, Failure>, Vec<Received>) {
    let server = Server::start(exchanges.iter().map(|exchange| bytes(&exchange["reply"])).collect()).await;
    let world = World::new(&format!("http://127.0.0.1:{}", server.port), &[]);
    let request = &exchanges[0]["request"];
    let result = match provider {
        "oidc" => {
            let body: Value = serde_json::from_str(text(request, "body")).unwrap();
            let ids = body.get("policy_ids").and_then(Value::as_array).into_iter().flatten();
            let config = config::Oidc {
                sts_endpoint: world.endpoint.clone(),
                provider_urn: text(&body, "provider_urn").to_owned(),
                agency_urn: text(&body, "agency_urn").to_owned(),
                token_file: world.token(text(&body, "id_token")),
                session_name: text(&body, "agency_session_name").to_owned(),
                duration: Duration::from_secs(body["duration_seconds"].as_u64().unwrap()),
                policy: body.get("policy").map(|policy| policy.as_str().unwrap().to_owned()),
                policy_ids: ids.map(|id| id.as_str().unwrap().to_owned()).collect(),
            };
            OidcFederation::new(config, world.service("STS")).get().await
        }
        "pod identity" => {
            let config = config::PodIdentity {
                endpoint: world.endpoint.clone(),
                path: text(request, "path").to_owned(),
                authorization_token_file: world.token(text(&request["headers"], "authorization")),
            };
            PodIdentityAgent::new(config, world.service("the pod identity agent")).get().await
        }
        _ => MetadataService::new(world.endpoint.clone(), world.service("the metadata service")).get().await,
    };
    (result, server.received())
}

fn assert_result(result: Result<TemporaryCredentials, Failure>, provider: &str, name: &str, sdk: &Value) {
    let is_this = |row: &&(&str, &str, FailureKind, &str)| (row.0, row.1) == (provider, name);
    match PROBLEMS.iter().find(is_this) {
        Some((_, _, kind, problem)) => {
            assert_eq!(result, Err(Failure { kind: *kind, problem: (*problem).to_owned() }), "{name}");
        }
        None if name.starts_with("no key: 4") => {
            assert_eq!(result.map_err(|failure| failure.kind), Err(FailureKind::Rejected), "{name}");
        }
        None => {
            let TemporaryCredentials { credentials, expires_at } = result.unwrap_or_else(|f| panic!("{name}: {f:?}"));
            let first = sdk.get(0).unwrap_or(sdk);
            let Some(access_key) = first.get("ak").filter(|_| provider != "metadata" || name != "refresh") else {
                return;
            };
            assert_eq!(*access_key, credentials.access_key, "{name}");
            assert_eq!(first["sk"], credentials.secret_key.expose_secret(), "{name}");
            assert_eq!(first["security_token"], credentials.security_token.unwrap().expose_secret(), "{name}");
            let seconds = expires_at.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
            assert_eq!(first["expires_at_unix"], seconds, "{name}");
        }
    }
}

#[tokio::test]
async fn requests_and_responses_of_the_vendors_sdk_are_understood() {
    let wire: Value = serde_json::from_str(WIRE).unwrap();
    let mut played = 0;
    for case in wire["cases"].as_array().unwrap() {
        let (provider, name) = (text(case, "provider"), text(case, "case"));
        let mut exchanges = &case["exchanges"].as_array().unwrap()[..];
        let is_ours = ["oidc", "pod identity", "metadata"].contains(&provider) && !SKIPPED.contains(&name);
        if !is_ours || exchanges.is_empty() {
            continue;
        }
        if provider != "metadata" {
            exchanges = &exchanges[..1]; // further ones are redirects or later refreshes
        } else if name == "refresh" {
            exchanges = &exchanges[..2];
        }
        let (result, received) = play(provider, exchanges).await;
        assert_eq!(received.len(), exchanges.len(), "{name}: {received:?}");
        for (received, exchange) in received.iter().zip(exchanges) {
            assert_request(received, &exchange["request"], name);
        }
        assert_result(result, provider, name, &case["sdk"]);
        played += 1;
    }
    assert_eq!(played, 52);
}
