//! Compares every step of the signer with signatures of the vendor's own SDK.
//!
//! Reads the file in `SIGN_VECTORS`, by default `tests/sign_vectors.json`.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test")]

use base64::{Engine as _, prelude::BASE64_STANDARD};
use scm_gateway::scm::sign::{self, Parts, uri};
use serde::Deserialize;

#[derive(Deserialize)]
struct File {
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    ak: String,
    sk: String,
    request: Request,
    expected: Expected,
}

#[derive(Deserialize)]
struct Request {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    body_base64: String,
}

#[derive(Deserialize)]
struct Expected {
    canonical_uri: String,
    canonical_query: String,
    signed_headers: String,
    payload_hash: String,
    canonical_request: String,
    string_to_sign: String,
    signature: String,
    authorization: String,
}

fn pairs(owned: &[(String, String)]) -> Vec<(&str, &str)> {
    owned.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn check(vector: &Vector) {
    let Vector { name, ak, sk, request, expected } = vector;
    let body = BASE64_STANDARD.decode(&request.body_base64).unwrap();
    let query = uri::canonical_query(&pairs(&request.query));
    let headers = pairs(&request.headers);
    let date = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(sign::DATE_HEADER)).unwrap().1;
    let parts = Parts { method: &request.method, path: &request.path, query: &query, headers: &headers, body: &body };

    assert_eq!(uri::canonical_path(&request.path), expected.canonical_uri, "{name}: canonical URI");
    assert_eq!(query, expected.canonical_query, "{name}: canonical query");
    let canonical = sign::canonical(&parts);
    assert_eq!(canonical.signed_headers, expected.signed_headers, "{name}: signed headers");
    assert!(canonical.request.ends_with(&expected.payload_hash), "{name}: payload hash");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("x-sdk-content-sha256")) {
        assert_eq!(sign::payload_hash(&body), expected.payload_hash, "{name}: payload hash of the body");
    }
    assert_eq!(*canonical.request, expected.canonical_request, "{name}: canonical request");
    let string_to_sign = sign::string_to_sign(date, &canonical.request);
    assert_eq!(string_to_sign, expected.string_to_sign, "{name}: string to sign");
    assert_eq!(sign::signature(sk, &string_to_sign), expected.signature, "{name}: signature");
    assert_eq!(sign::sign(&parts, date, ak, sk), expected.authorization, "{name}: authorization");
}

#[test]
fn every_step_matches_the_vendors_sdk() {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sign_vectors.json");
    let path = std::env::var("SIGN_VECTORS").unwrap_or_else(|_| default.to_owned());
    let file: File = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(!file.vectors.is_empty(), "the file has no vectors");
    file.vectors.iter().for_each(check);
}
