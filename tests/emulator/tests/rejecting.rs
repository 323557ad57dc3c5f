//! Requests with an invalid signature: they are rejected and counted, store nothing, and finally lock the key.

#![allow(clippy::unwrap_used)]

#[path = "support/client.rs"]
mod client;

use std::time::Duration;

use client::{Answer, CERTIFICATE, Call, ManualClock, NOW, call, draft, start};
use scm_emulator::{Account, Emulator, Options, SAMPLE_ACCESS_KEY, SAMPLE_DOMAIN, SAMPLE_PROJECT, Step};

fn assert_nothing_stored(emulator: &Emulator) {
    assert_eq!(emulator.journal(), []);
    assert_eq!(emulator.saved(SAMPLE_PROJECT, CERTIFICATE), None);
}

/// Asserts that the response is a rejection, and that the last recorded rejection has this reason.
fn assert_rejected(emulator: &Emulator, answer: &Answer, reason: &str) {
    assert_eq!(answer.status, 401, "{reason}");
    let body = answer.json();
    assert_eq!(body["error_code"], "APIG.0301", "{reason}");
    assert_eq!(body["request_id"], answer.header("X-Request-Id"), "{reason}");
    assert_eq!(answer.header("X-Request-Id").len(), 32, "{reason}");
    let text = body["error_msg"].as_str().unwrap();
    let start = "Incorrect IAM authentication information: verify aksk signature fail, ";
    assert!(text.starts_with(start), "{reason}");
    assert!(text.contains(reason), "{reason}");
    assert!(text.contains("|content-") || text.contains("POST|"), "{reason}");
    assert_eq!(emulator.rejections().last().unwrap().reason, reason);
}

/// Asserts that a new emulator rejects this call for this reason.
async fn rejects(reason: &str, forged: Call) {
    let emulator = start().await;
    let answer = call(&emulator, &forged).await;
    assert_rejected(&emulator, &answer, reason);
    assert_eq!(emulator.rejections()[0].target, forged.target);
    assert_eq!(emulator.rejections().len(), 1);
    assert_eq!(emulator.attempts(), 1);
    assert_nothing_stored(&emulator);
}

#[tokio::test]
async fn a_valid_request_is_recorded_and_stored() {
    let emulator = start().await;
    let request = Call::save().sign();
    let answer = call(&emulator, &request).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, br#"{"request_info":"success"}"#);
    assert_eq!(answer.header("Date"), "Tue, 09 Aug 2022 04:05:06 GMT");
    assert_eq!(answer.header("X-Request-Id").len(), 32);
    assert_eq!(emulator.rejections(), []);
    let saved = emulator.saved(SAMPLE_PROJECT, CERTIFICATE);
    assert_eq!(saved, Some(draft()));
    let [recorded] = &emulator.journal()[..] else {
        panic!("exactly one request is recorded");
    };
    assert_eq!(recorded.method, "POST");
    assert_eq!(recorded.target, request.target);
    assert_eq!(recorded.body, request.body);
    assert_eq!(recorded.access_key, SAMPLE_ACCESS_KEY);
    assert_eq!(recorded.header("x-sdk-date"), Some(NOW));
    let names: Vec<&str> = recorded.headers.iter().map(|(name, _)| &name[..]).collect();
    let wire = ["Host", "Content-Type", "X-Sdk-Date", "Authorization", "Content-Length"];
    assert_eq!(names, wire);
}

#[tokio::test]
async fn wrong_keys_are_rejected() {
    let wrong = Call::save().with(|call| call.secret_key = "another".to_owned());
    rejects("the signature does not match", wrong.sign()).await;
    let unknown = Call::save().with(|call| call.access_key = "NOBODY".to_owned());
    rejects("unknown access key", unknown.sign()).await;
}

#[tokio::test]
async fn changes_after_signing_are_rejected() {
    let reason = "the signature does not match";
    let altered = |change: fn(&mut Call)| Call::save().sign().with(change);
    rejects(reason, altered(|call| call.body[3] ^= 1)).await;
    rejects(reason, altered(|call| call.body.push(b' '))).await;
    rejects(reason, altered(|call| call.body.clear())).await;
    let path = |call: &mut Call| call.target = call.target.replace("scs148", "scs149");
    rejects(reason, altered(path)).await;
    rejects(reason, altered(|call| call.method = "PUT")).await;
    rejects(reason, altered(|call| call.target.push_str("?a=b"))).await;
    rejects(reason, Call::save().sign().set("Host", "other.example")).await;
    let date = Call::save().sign().set("X-Sdk-Date", "20220809T040507Z");
    rejects(reason, date).await;
    let upper = |call: &mut Call| {
        let authorization = call.authorization.take().unwrap();
        let (front, signature) = authorization.split_once("Signature=").unwrap();
        let signature = signature.to_ascii_uppercase();
        call.authorization = Some(format!("{front}Signature={signature}"));
    };
    rejects(reason, altered(upper)).await;
}

#[tokio::test]
async fn dates_off_by_over_15_minutes_are_rejected() {
    for date in ["20220809T034906Z", "20220809T035005Z", "20220809T042007Z", "20220809T042106Z"] {
        let stale = Call::save().set("X-Sdk-Date", date).sign();
        rejects("signature expired", stale).await;
    }
    for date in ["20220809T035006Z", "20220809T042006Z"] {
        let emulator = start().await;
        let near = Call::save().set("X-Sdk-Date", date).sign();
        assert_eq!(call(&emulator, &near).await.status, 200, "{date}");
    }
    let odd = Call::save().set("X-Sdk-Date", "2022-08-09T04:05:06Z");
    rejects("X-Sdk-Date malformed", odd.sign()).await;
}

#[tokio::test]
async fn invalid_signed_headers_are_rejected() {
    let signing = |signed: &[&'static str]| {
        let signed = signed.to_vec();
        Call::save().with(|call| call.signed = signed).sign()
    };
    rejects("host is not signed", signing(&["content-type", "x-sdk-date"])).await;
    rejects("x-sdk-date is not signed", signing(&["content-type", "host"])).await;
    rejects("content-type is not signed", signing(&["host", "x-sdk-date"])).await;
    let absent = signing(&["content-type", "host", "x-project-id", "x-sdk-date"]);
    rejects("a signed header is absent", absent).await;
    let unsorted = signing(&["host", "content-type", "x-sdk-date"]);
    let reason = "SignedHeaders is not sorted, or names a header twice";
    rejects(reason, unsorted).await;
    let upper = signing(&["Content-Type", "host", "x-sdk-date"]);
    rejects("SignedHeaders is not in lower case", upper).await;
    let underscore = signing(&["content-type", "host", "x-sdk-date", "x_y"]).set("x_y", "");
    let reason = "SignedHeaders names a header with an underscore";
    rejects(reason, underscore).await;
    let twice = |call: &mut Call| call.headers.push(("host", "scm.example".to_owned()));
    let twice = Call::save().sign().with(twice);
    rejects("a signed header is given twice", twice).await;
}

#[tokio::test]
async fn missing_and_duplicate_authorizations_are_rejected() {
    rejects("no Authorization", Call::save()).await;
    let other = |call: &mut Call| {
        let right = call.authorization.take().unwrap();
        call.authorization = Some(right.replace("SDK-HMAC-SHA256", "V11-HMAC-SHA256"));
    };
    rejects("other algorithm", Call::save().sign().with(other)).await;
    let twice = Call::save().sign().set("authorization", "Bearer x");
    rejects("Authorization given twice", twice).await;
}

#[tokio::test]
async fn non_canonical_queries_are_rejected() {
    let query = |query: &str| {
        let query = query.to_owned();
        Call::save().with(|call| call.target.push_str(&query)).sign()
    };
    for text in ["?b=1&a=2", "?a", "?a=%7e", "?a=b+c", "?a=*"] {
        rejects("the query is not in its canonical form", query(text)).await;
    }
    let emulator = start().await;
    let answer = call(&emulator, &query("?a=1&b=%20")).await;
    assert_eq!((answer.status, emulator.rejections().len()), (400, 0), "signed, although a save has no query");
}

#[tokio::test]
async fn the_project_id_is_signed_and_matches_the_path() {
    let unsigned = Call::save().sign().set("X-Project-Id", SAMPLE_PROJECT);
    rejects("x-project-id is not signed", unsigned).await;
    let signed = |value: &str| {
        let call = Call::save().set("X-Project-Id", value);
        call.with(|call| call.signed.insert(2, "x-project-id")).sign()
    };
    let other = signed("fedcba9876543210fedcba9876543210");
    rejects("x-project-id differs from the path's project", other).await;
    let emulator = start().await;
    let answer = call(&emulator, &signed(SAMPLE_PROJECT)).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_v3_request_names_its_tenant_or_none() {
    let show = || Call { method: "GET", target: format!("/v3/scm/certificates/{CERTIFICATE}"), ..Call::read() };
    let signed =
        |name: &'static str, value: &str| show().set(name, value).with(|call| call.signed.insert(2, name)).sign();
    let emulator = start().await;
    for request in [show().sign(), signed("x-domain-id", SAMPLE_DOMAIN), signed("x-project-id", SAMPLE_PROJECT)] {
        assert_eq!(call(&emulator, &request).await.status, 200);
    }
    let both = signed("x-domain-id", SAMPLE_DOMAIN).set("x-project-id", SAMPLE_PROJECT);
    for (request, reason) in [
        (show().sign().set("x-domain-id", SAMPLE_DOMAIN), "x-domain-id is not signed"),
        (show().sign().set("x-project-id", SAMPLE_PROJECT), "x-project-id is not signed"),
        (signed("x-domain-id", SAMPLE_PROJECT), "x-domain-id is not the account's"),
        (signed("x-project-id", SAMPLE_DOMAIN), "x-project-id is not of the account"),
        (both, "x-project-id together with x-domain-id"),
    ] {
        let emulator = start().await;
        assert_rejected(&emulator, &call(&emulator, &request).await, reason);
        assert_nothing_stored(&emulator);
    }
}

#[tokio::test]
async fn certificates_belong_to_the_account_that_used_them_first() {
    let mut options = ManualClock::default().options();
    let other = Account { access_key: "OTHER".to_owned(), domain_id: "another".to_owned(), ..Account::sample() };
    options.accounts.push(other);
    let emulator = Emulator::start(options).await.unwrap();
    assert_eq!(call(&emulator, &Call::save().sign()).await.status, 200);
    let foreign = call(&emulator, &Call::save().with(|call| call.access_key = "OTHER".to_owned()).sign()).await;
    assert_eq!((foreign.status, &foreign.json()["error_code"]), (400, &"SCM.0003".into()));
}

#[tokio::test]
async fn the_token_is_signed_and_matches_the_account() {
    let account = Account { security_token: Some("token/of+it==".to_owned()), ..Account::sample() };
    let options = Options { accounts: vec![account], ..ManualClock::default().options() };
    let emulator = Emulator::start(options).await.unwrap();
    let signed = |value: &str| {
        let call = Call::save().set("X-Security-Token", value);
        call.with(|call| call.signed.push("x-security-token")).sign()
    };
    for (request, reason) in [
        (Call::save().sign(), "the security token is missing"),
        (signed("another"), "wrong security token"),
        (Call::save().sign().set("X-Security-Token", "token/of+it=="), "x-security-token is not signed"),
    ] {
        assert_rejected(&emulator, &call(&emulator, &request).await, reason);
        assert_nothing_stored(&emulator);
    }
    let right = call(&emulator, &signed("token/of+it==")).await;
    assert_eq!(right.status, 200);
    let reason = "a security token with a permanent access key";
    rejects(reason, signed("token/of+it==")).await;
}

#[tokio::test]
async fn the_sixth_rejection_locks_the_key_for_5_minutes() {
    let clock = ManualClock::default();
    let mut options = clock.options();
    let other = Account { access_key: "OTHER".to_owned(), ..Account::sample() };
    options.accounts.push(other);
    let emulator = Emulator::start(options).await.unwrap();
    let right = Call::save().sign();
    let wrong = right.clone().with(|call| call.body.push(b' '));
    for _ in 0..6 {
        let answer = call(&emulator, &wrong).await;
        assert_rejected(&emulator, &answer, "the signature does not match");
    }
    for _ in 0..3 {
        let answer = call(&emulator, &right).await;
        assert_rejected(&emulator, &answer, "the access key is locked");
    }
    clock.advance(Duration::from_secs(5 * 60 - 1));
    let answer = call(&emulator, &right).await;
    assert_rejected(&emulator, &answer, "the access key is locked");
    assert_eq!(emulator.rejections().len(), 10);
    assert_nothing_stored(&emulator);

    let unlocked = Call::save().with(|call| call.access_key = "OTHER".to_owned()).sign();
    assert_eq!(call(&emulator, &unlocked).await.status, 200);
    clock.advance(Duration::from_secs(1));
    assert_eq!(call(&emulator, &right).await.status, 200);
    assert_eq!(emulator.journal().len(), 2);
}

#[tokio::test]
async fn a_success_resets_the_rejections() {
    let emulator = start().await;
    let right = Call::save().sign();
    let wrong = right.clone().with(|call| call.body.push(b' '));
    for _ in 0..3 {
        for _ in 0..5 {
            assert_eq!(call(&emulator, &wrong).await.status, 401);
        }
        assert_eq!(call(&emulator, &right).await.status, 200);
    }
    assert_eq!(emulator.rejections().len(), 15);
}

#[tokio::test]
async fn a_scripted_response_does_not_undo_a_rejection() {
    let emulator = start().await;
    let wrong = Call::save().with(|call| call.secret_key = "another".to_owned()).sign();
    for _ in 0..6 {
        emulator.script(Step::Reply(scm_emulator::Reply::json(200, "{}")));
        assert_eq!(call(&emulator, &wrong).await.status, 200);
    }
    assert_eq!(emulator.rejections().len(), 6);
    assert_nothing_stored(&emulator);
    let answer = call(&emulator, &Call::read().sign()).await;
    assert_rejected(&emulator, &answer, "the access key is locked");
}
