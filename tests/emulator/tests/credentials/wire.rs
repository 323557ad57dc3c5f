//! The requests that the vendor's Python SDK sends, and the responses that its definitions have. `credentials_wire.json`
//! is a copy of the project's collection of facts, unchanged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use scm_emulator::{
    Association, CredentialService, Field, Issue, Issuer, Kind, Metadata, PodIdentity, Provider, Reply, ServiceOptions,
    Step, Sts, TimeFormat, Version,
};
use serde_json::Value;

use crate::client::{Answer, ManualClock};
use crate::services::{Ask, KEY_PATH, Lab, POD_PATH, STS_PATH, TOKEN_PATH};

/// The paths of services that are not emulated: the old federation, a base key that assumes an agency, ids, and the
/// targets of redirects and proxies.
const NOT_EMULATED: [&str; 7] = [
    "/elsewhere",
    "/v3.0/OS-AUTH/id-token/tokens",
    "/v3.0/OS-CREDENTIAL/securitytokens",
    "/v3/auth/domains",
    "/v5/agencies/assume",
    "/v5/caller-identity",
    "http://agent.invalid/v1/credentials",
];

fn file() -> Value {
    serde_json::from_str(include_str!("../../../credentials_wire.json")).unwrap()
}

/// Returns a clock at the time at which the cases begin, with the fraction of their expirations.
fn clock(file: &Value) -> ManualClock {
    let clock = ManualClock::default();
    let now = file["made_up_values"]["now"].as_u64().unwrap();
    let start = clock.now().duration_since(UNIX_EPOCH).unwrap();
    clock.advance(Duration::from_secs(now) - start + Duration::from_nanos(158_123_456));
    clock
}

/// How a service gives the response of a case: by its content, or by a step.
enum Cause {
    Content(Kind),
    Step(Step),
}

/// The cases whose successes are not the usual ones.
const OTHER_SUCCESSES: [&str; 2] =
    ["ok, plain agency", "temporary key and security token as the reply names them in other styles"];

/// Returns the cause of a response that is not the usual one.
fn cause(case: &str, reply: &Value) -> Cause {
    let other = |text: &str| format!("{text}-other");
    let mut sts = Sts::default();
    let version = |status| Kind::from(Metadata { version: Version::One(status), ..Metadata::default() });
    match case {
        "empty session name variable" | "expired token refused" => Cause::Content(sts.into()),
        "trust policy does not match" => {
            sts.agencies[0].subjects = vec!["system:serviceaccount:scm:other".to_owned()];
            Cause::Content(sts.into())
        }
        "audience is not a client id of the provider" => {
            sts.providers = vec![Provider { client_ids: vec![other("sts")], ..Provider::default() }];
            Cause::Content(sts.into())
        }
        "provider or agency unknown" => Cause::Content(Sts { providers: Vec::new(), ..sts }.into()),
        "200 without credentials" | "malformed: no credentials" => Cause::Step(Step::Issue(Issue::Nothing)),
        "200 without security token" => Cause::Step(Step::Issue(Issue::Null(Field::SecurityToken))),
        "200 with an empty access key" => Cause::Step(Step::Issue(Issue::Empty(Field::AccessKey))),
        "200, expired already" => Cause::Step(Step::Issue(Issue::Expired(Duration::from_secs(60)))),
        "401" => Cause::Content(PodIdentity { issuer: other("https://"), ..PodIdentity::default() }.into()),
        "404" => Cause::Content(PodIdentity { associations: Vec::new(), ..PodIdentity::default() }.into()),
        "ok, plain agency" => {
            let plain = Association { trust_agency: None, ..Association::default() };
            Cause::Content(PodIdentity { associations: vec![plain], ..PodIdentity::default() }.into())
        }
        "no agency" | "pod identity, the metadata service says no" => {
            Cause::Content(Metadata { agency: None, ..Metadata::default() }.into())
        }
        "v1: 404 to the request for a token" => Cause::Content(version(404)),
        "v1: 405 to the request for a token" => Cause::Content(version(405)),
        "v1: 503 to the request for a token" => Cause::Content(version(503)),
        _ => Cause::Step(scripted(reply)),
    }
}

fn scripted(reply: &Value) -> Step {
    let status = u16::try_from(reply["status"].as_u64().unwrap()).unwrap();
    if status == 0 {
        return Step::Close;
    }
    let headers = reply["headers"].as_object().unwrap().iter();
    let headers = headers.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
    let body = reply["body"].as_str().unwrap_or_default();
    Step::Reply(Reply { status, headers, body: body.into() })
}

/// Returns whether a response is a success of the vendor's form.
fn is_success(reply: &Value) -> bool {
    let body: Value = serde_json::from_str(reply["body"].as_str().unwrap_or_default()).unwrap_or_default();
    let credentials = body.get("credentials").or_else(|| body.get("credential"));
    let complete = credentials
        .and_then(Value::as_object)
        .is_some_and(|fields| fields.values().all(|field| field != "" && !field.is_null()));
    reply["status"] == 200 && (complete || reply["headers"]["Content-Type"] == "text/plain")
}

/// Returns a request of a case with another token of the metadata service.
fn request(sent: &Value, metadata_token: Option<&str>) -> Ask {
    let methods = BTreeMap::from([("GET", "GET"), ("POST", "POST"), ("PUT", "PUT")]);
    let mut ask = Ask::new(methods[sent["method"].as_str().unwrap()], sent["path"].as_str().unwrap());
    ask.headers.clear();
    for (name, value) in sent["headers"].as_object().unwrap().iter().filter(|(name, _)| *name != "content-length") {
        let value = match (name.as_str(), metadata_token) {
            ("x-metadata-token", Some(token)) => token,
            _ => value.as_str().unwrap(),
        };
        ask = ask.header(name, value);
    }
    ask.with(|ask| ask.body = sent["body"].as_str().unwrap_or_default().to_owned())
}

/// Replaces each value by its type, and each time by its number of digits.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
        Value::Array(items) => items.iter().map(shape).collect(),
        Value::String(text) if text.starts_with("20") && text.ends_with('Z') => {
            format!("a time of {}", text.len()).into()
        }
        Value::String(_) => "a string".into(),
        Value::Number(_) => "a number".into(),
        Value::Bool(_) => "a boolean".into(),
        Value::Null => Value::Null,
    }
}

/// Asserts that a response has the status, the content type and the shape of the vendor's.
fn assert_like(name: &str, answer: Option<&Answer>, reply: &Value) {
    let Some(answer) = answer else {
        assert_eq!(reply["status"], 0, "{name}: no response");
        return;
    };
    assert_eq!(answer.status, reply["status"], "{name}");
    assert_eq!(answer.header("Content-Type"), reply["headers"]["Content-Type"], "{name}");
    let expected = reply["body"].as_str().unwrap_or_default();
    let sent = std::str::from_utf8(&answer.body).unwrap();
    match (serde_json::from_str::<Value>(expected), serde_json::from_str::<Value>(sent)) {
        // The texts of errors that the vendor does not document have no shape.
        (Ok(expected), Ok(sent)) if answer.status >= 400 => {
            assert_eq!(sent.get("error_code"), expected.get("error_code"), "{name}");
        }
        (Ok(expected), Ok(sent)) => {
            let (expected, sent) = (shape(&expected), shape(&sent));
            match expected.as_object().filter(|object| object.len() == 1) {
                Some(only) => assert!(only.iter().all(|(key, value)| sent[key] == *value), "{name}: {sent}"),
                None => assert_eq!(sent, expected, "{name}"),
            }
        }
        (Err(_), Err(_)) if answer.header("Content-Type") == "text/plain" => assert!(!sent.is_empty()),
        (expected_json, _) => assert!(expected_json.is_err() && sent == expected, "{name}: {sent}"),
    }
}

/// The services of a case. A step or other content applies only to the response that needs it.
struct Services {
    sts: Lab,
    agent: Lab,
    metadata: Lab,
    metadata_token: Option<String>,
}

impl Services {
    async fn start(clock: &ManualClock) -> Self {
        Self {
            sts: Lab::at(clock.clone(), Sts::default()).await,
            agent: Lab::at(clock.clone(), PodIdentity::default()).await,
            metadata: Lab::at(clock.clone(), Metadata::default()).await,
            metadata_token: None,
        }
    }

    fn of(&mut self, sent: &Value) -> Option<&mut Lab> {
        match sent["path"].as_str().unwrap() {
            _ if sent["headers"]["host"] == "evil.invalid" => None,
            STS_PATH => Some(&mut self.sts),
            POD_PATH => Some(&mut self.agent),
            TOKEN_PATH | KEY_PATH => Some(&mut self.metadata),
            other => {
                assert!(NOT_EMULATED.contains(&other), "{other}");
                None
            }
        }
    }

    /// Sends a request of a case. Returns whether a service answered as the vendor's.
    async fn exchange(&mut self, name: &str, case: &str, exchange: &Value, clock: &ManualClock) -> bool {
        let (sent, reply) = (&exchange["request"], &exchange["reply"]);
        let token = self.metadata_token.clone();
        let Some(lab) = self.of(sent) else { return false };
        if !is_success(reply) || OTHER_SUCCESSES.contains(&case) {
            match cause(case, reply) {
                Cause::Content(kind) => *lab = Lab::at(clock.clone(), kind).await,
                Cause::Step(step) => lab.service.script(step),
            }
        }
        let answer = lab.send(&request(sent, token.as_deref())).await;
        assert_like(name, answer.as_ref(), reply);
        assert_eq!(lab.service.steps_left(), 0, "{name}");
        let rejected = lab.service.exchanges().pop().and_then(|exchange| exchange.rejection);
        assert!(rejected.is_none() || !is_success(reply), "{name}: {rejected:?}");
        if let Some(answer) = answer.filter(|answer| sent["method"] == "PUT" && answer.status == 200) {
            self.metadata_token = String::from_utf8(answer.body).ok();
        }
        true
    }
}

#[tokio::test]
async fn services_answer_every_request_like_the_vendors() {
    let file = file();
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 69);
    let (mut answered, mut not_emulated) = (0, 0);
    for case in cases {
        let title = case["case"].as_str().unwrap();
        let name = format!("{}: {title}", case["provider"]);
        let clock = clock(&file);
        let mut services = Services::start(&clock).await;
        let mut before = Value::Null;
        for exchange in case["exchanges"].as_array().unwrap() {
            // The token that is valid from minute 48 is in this case and in those with a refresh.
            let refresh = exchange["request"]["path"] == before && before != TOKEN_PATH;
            if refresh || title == "token variable beats token file" {
                clock.advance(Duration::from_secs(50 * 60));
            }
            before = exchange["request"]["path"].clone();
            match services.exchange(&name, title, exchange, &clock).await {
                true => answered += 1,
                false => not_emulated += 1,
            }
        }
    }
    assert_eq!((answered, not_emulated), (74, 11), "exchanges");
}

#[tokio::test]
async fn every_form_of_a_time_of_the_vendors_cases_exists() {
    let file = file();
    let whole = |clock: &ManualClock, digits: u64| {
        let now = clock.now().duration_since(UNIX_EPOCH).unwrap();
        SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs()) + Duration::from_nanos(digits)
    };
    let clock = clock(&file);
    for time in file["times"].as_array().unwrap() {
        let expected = &time["expiration"];
        let (format, fraction) = match expected.as_str() {
            None => (TimeFormat::Number, 0),
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => (TimeFormat::NumberText, 0),
            Some("2026-11-29T11:00:00.158+00:00") => (TimeFormat::Offset(3, 0), 158_000_000),
            Some("2026-11-29T19:00:00.158+08:00") => (TimeFormat::Offset(3, 480), 158_000_000),
            Some(text) => {
                let digits = text.trim_end_matches('Z').split_once('.').map_or("", |(_, digits)| digits);
                (TimeFormat::Utc(digits.len()), format!("{digits:0<9}").parse().unwrap())
            }
        };
        let now = whole(&clock, fraction);
        let options = ServiceOptions {
            now: Arc::new(move || now),
            format: Some(format),
            validity: Some(Duration::from_secs(3600)),
            ..ServiceOptions::default()
        };
        let metadata = Metadata { version: Version::One(404), ..Metadata::default() };
        let service = CredentialService::start(metadata, options, &Issuer::default()).await.unwrap();
        let answer = Ask::key(None).send(&service).await.unwrap();
        assert_eq!(answer.json()["credential"]["expires_at"], *expected);
    }
}
