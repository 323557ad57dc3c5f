//! Tests the verification with the vendor's vectors, from the bytes that a client would send.

#![allow(clippy::unwrap_used)]

use serde_json::Value;

use super::*;
use crate::http::parse_head;

fn vectors() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../sign_vectors.json");
    let text = std::fs::read_to_string(path).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    file["vectors"].as_array().unwrap().clone()
}

fn escape(text: &str, keep: impl Fn(u8) -> bool) -> String {
    let escaped =
        text.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") });
    escaped.collect()
}

/// Returns a vector's request as sent by a client, which escapes only the path bytes that a request line cannot
/// contain. The query is unsorted and has lower-case escapes, so that the verification has to canonicalize it.
fn received(request: &Value) -> Request {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut target = escape(&text(&request["path"]), |byte| byte.is_ascii_graphic());
    for (index, pair) in request["query"].as_array().unwrap().iter().enumerate() {
        target.push(if index == 0 { '?' } else { '&' });
        let part = |value: &Value| escape(&text(value), |byte| byte.is_ascii_alphanumeric());
        target.push_str(&format!("{}={}", part(&pair[0]), part(&pair[1])));
    }
    let mut head = format!("{} {target} HTTP/1.1\r\n", text(&request["method"]));
    for line in request["headers"].as_array().unwrap() {
        head.push_str(&format!("{}: {}\r\n", text(&line[0]), text(&line[1])));
    }
    head.push_str("\r\n");
    let (mut parsed, length) = parse_head(head.as_bytes()).unwrap().unwrap();
    assert_eq!(length, head.len());
    parsed.body = text(&request["body_utf8"]).into_bytes();
    parsed
}

#[test]
fn every_step_matches_the_vectors() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 22);
    for vector in vectors {
        let name = &vector["name"];
        let expected = &vector["expected"];
        let mut request = received(&vector["request"]);
        let authorization = expected["authorization"].as_str().unwrap();
        let line = ("Authorization".to_owned(), authorization.into());
        request.headers.push(line);
        let claim = Claim::of(&request).unwrap();
        assert_eq!(vector["ak"], claim.access_key, "{name}");
        assert_eq!(expected["signature"], claim.signature, "{name}");
        assert_eq!(expected["canonical_uri"], canonical_uri(request.path()), "{name}");
        assert_eq!(expected["canonical_query"], canonical_query(request.query()), "{name}");

        let canonical = canonical_request(&request, &claim.signed_headers);
        let text = String::from_utf8(canonical.clone()).unwrap();
        assert_eq!(expected["canonical_request"], text, "{name}");
        let date = request.values("x-sdk-date").next().unwrap();
        let to_sign = string_to_sign(std::str::from_utf8(date).unwrap(), &canonical);
        assert_eq!(expected["string_to_sign"], to_sign, "{name}");
        let secret_key = vector["sk"].as_str().unwrap();
        assert_eq!(expected["signature"], signature(secret_key, &to_sign), "{name}");
    }
}

#[test]
fn canonical_vectors_are_accepted_and_others_rejected() {
    let mut verified = 0;
    for vector in vectors() {
        let expected = &vector["expected"];
        let mut request = received(&vector["request"]);
        let authorization = expected["authorization"].as_str().unwrap();
        let line = ("Authorization".to_owned(), authorization.into());
        request.headers.push(line);
        let token = request.values("x-security-token").next();
        let account = Account {
            access_key: vector["ak"].as_str().unwrap().to_owned(),
            secret_key: vector["sk"].as_str().unwrap().to_owned(),
            security_token: token.map(|token| String::from_utf8(token.to_vec()).unwrap()),
            projects: Vec::new(),
            ..Account::sample()
        };
        let date = request.values("x-sdk-date").next().unwrap();
        let now = parse_sdk_date(std::str::from_utf8(date).unwrap()).unwrap();
        let claim = Claim::of(&request).unwrap();
        let verify = |request: &Request| verify(request, &claim, &account, now);
        if !claim.signs("content-type") {
            let reason = Err("content-type is not signed");
            assert_eq!(verify(&request), reason, "{}", vector["name"]);
            continue;
        }
        if !request.query().is_empty() {
            let reason = Err("the query is not in its canonical form");
            assert_eq!(verify(&request), reason, "{}", vector["name"]);
        }
        let query = expected["canonical_query"].as_str().unwrap();
        let mut canonical = request.clone();
        if !query.is_empty() {
            canonical.target = format!("{}?{query}", request.path());
        }
        assert_eq!(verify(&canonical), Ok(()), "{}", vector["name"]);
        canonical.body.push(b' ');
        assert!(verify(&canonical).is_err(), "{}", vector["name"]);
        verified += 1;
    }
    assert_eq!(verified, 11);
}

#[test]
fn an_unsigned_payload_is_rejected() {
    let head = "POST /v2/p/scm/cert/c/save HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
                X-Sdk-Date: 20220809T040506Z\r\nX-Sdk-Content-Sha256: UNSIGNED-PAYLOAD\r\n\r\n";
    let (mut request, _) = parse_head(head.as_bytes()).unwrap().unwrap();
    request.body = b"{}".to_vec();
    let signed_headers = vec!["content-type", "host", "x-sdk-content-sha256", "x-sdk-date"];
    let to_sign = string_to_sign("20220809T040506Z", &canonical_request(&request, &signed_headers));
    let account = Account::sample();
    let signature = signature(&account.secret_key, &to_sign);
    let claim = Claim { access_key: &account.access_key, signed_headers, signature: &signature };
    let now = parse_sdk_date("20220809T040506Z").unwrap();
    assert_eq!(verify(&request, &claim, &account, now), Err("x-sdk-content-sha256 differs from the body's hash"));
}

#[test]
fn malformed_authorizations_are_rejected() {
    for (value, reason) in [
        ("", "Authorization malformed"),
        ("SDK-HMAC-SHA256", "Authorization malformed"),
        ("Bearer Access=a, SignedHeaders=b, Signature=c", "other algorithm"),
        ("SDK-HMAC-SM3 Access=a, SignedHeaders=b, Signature=c", "other algorithm"),
        ("SDK-HMAC-SHA256 Access=a,SignedHeaders=b,Signature=c", "Authorization malformed"),
        ("SDK-HMAC-SHA256 SignedHeaders=b, Access=a, Signature=c", "Authorization malformed"),
        ("SDK-HMAC-SHA256 Access=, SignedHeaders=b, Signature=c", "Authorization malformed"),
        ("SDK-HMAC-SHA256 Access=a, SignedHeaders=b, Signature=c, d", "Authorization malformed"),
    ] {
        let head = format!("GET / HTTP/1.1\r\nAuthorization: {value}\r\n\r\n");
        let (request, _) = parse_head(head.as_bytes()).unwrap().unwrap();
        assert_eq!(Claim::of(&request).map(|_| ()), Err(reason), "{value}");
    }
}
