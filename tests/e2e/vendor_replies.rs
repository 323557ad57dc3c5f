//! The responses of `tests/replies.json`: each gives its reply, its error, or UPSTREAM_MALFORMED.

use std::collections::BTreeSet;

use prost_reflect::DynamicMessage;
use scm_emulator::{Reply, Step};
use serde_json::Value;
use tonic::Code;

use crate::{
    harness::{
        Gateway, emulator,
        facts::NOT_OFFERED,
        rpc::{rpc, rpcs},
        samples::{self, Filling},
        seen,
    },
    reading,
};

/// The kinds of responses that are a success.
const SUCCESSES: [&str; 3] = ["success", "partial failure in 200", "odd"];

#[tokio::test]
async fn responses_of_the_vendor_give_what_the_contract_says() {
    let file: Value = serde_json::from_str(include_str!("../replies.json")).unwrap();
    let emulator = emulator().await;
    let gateway = Gateway::serving_all(&emulator, &[]).await;
    let (mut called, mut skipped) = (BTreeSet::new(), BTreeSet::new());
    for case in file["replies"].as_array().unwrap() {
        let text = |key: &str| case[key].as_str().unwrap_or_default();
        let what = format!("{}, {}", text("operation"), text("name"));
        if let Some((name, _)) = NOT_OFFERED.iter().find(|(name, _)| *name == text("operation")) {
            skipped.insert(*name);
            continue;
        }
        let rpc = rpc(text("operation"));
        let mut reply = Reply::new(case["status"].as_u64().unwrap().try_into().unwrap());
        if let Some(content_type) = case["content_type"].as_str() {
            reply = reply.header("Content-Type", content_type);
        }
        emulator.script(Step::Reply(reply.body(text("body"))));
        let result = gateway.call(&rpc, samples::request(&rpc, Filling::Required)).await;
        match text("kind") {
            kind if SUCCESSES.contains(&kind) => {
                let expected = reading::reply(&rpc, text("body")).unwrap_or_else(|field| panic!("{what}: {field:?}"));
                assert_eq!(
                    result.unwrap_or_else(|status| panic!("{what}: {status:?}")).into_inner(),
                    expected,
                    "{what}"
                );
            }
            kind => {
                let body: Value = serde_json::from_str(text("body")).unwrap_or_default();
                let expected = match (kind, body["error_code"].as_str()) {
                    ("error in 200", Some("SCM.0010")) => (Code::FailedPrecondition, "CERTIFICATE_STATE"),
                    ("malformed", None) => (Code::Internal, "UPSTREAM_MALFORMED"),
                    other => panic!("{what}: {other:?}"),
                };
                let seen = seen(&result.unwrap_err());
                assert_eq!((seen.code, seen.reason.as_str()), expected, "{what}");
                assert_eq!(seen.metadata.get("upstream_code").map(String::as_str), body["error_code"].as_str());
            }
        }
        called.insert(rpc.name().to_owned());
    }
    assert_eq!(called, rpcs().iter().map(|rpc| rpc.name().to_owned()).collect());
    assert_eq!(skipped.len(), NOT_OFFERED.len());
}

/// Returns the value of a field at a path such as `results.1.pushed`.
fn at(message: &DynamicMessage, path: &str) -> String {
    let mut value = prost_reflect::Value::Message(message.clone());
    for part in path.split('.') {
        value = match (&value, part.parse::<usize>()) {
            (prost_reflect::Value::List(entries), Ok(index)) => entries[index].clone(),
            (prost_reflect::Value::Message(inner), _) => inner.get_field_by_name(part).unwrap().into_owned(),
            other => panic!("{path}: {other:?}"),
        };
    }
    match value {
        prost_reflect::Value::String(text) => text,
        prost_reflect::Value::List(entries) => format!("{} entries", entries.len()),
        other => other.to_string(),
    }
}

/// Values in words, so that the reading of `reading.rs` and of the gateway cannot be wrong together.
#[tokio::test]
async fn known_values_are_decoded() {
    let emulator = emulator().await;
    let gateway = Gateway::serving_all(&emulator, &[]).await;
    for (name, body, values) in [
        (
            "BatchPushCertificate",
            r#"{"results":[{"project_name":"a","cert_id":"id","message":"success"},{"project_name":"b","cert_id":"","message":"no"},{"cert_id":null}]}"#,
            &[
                ("results.0.pushed", "true"),
                ("results.1.pushed", "false"),
                ("results.1.message", "no"),
                ("results.2.pushed", "false"),
            ][..],
        ),
        (
            "DeployCertificate",
            r#"{"failure_list":[{"resource":"r","failure_info":"ELB.8904"}]}"#,
            &[("failure_list", "1 entries"), ("failure_list.0.failure_info", "ELB.8904")],
        ),
        (
            "ShowCertificate",
            r#"{" id ":" scs1 ","order_id ":17,"DOMAIN":"no","domain":"first","domain":" last","sans":"a;b, c;","shared":"1","validity_period":"12","authentification":{"record_name":"_dnsauth"},"signature_algrithm":"RSA"}"#,
            &[
                ("certificate.id", "scs1"),
                ("certificate.order_id", "17"),
                ("certificate.domain", " last"),
                ("certificate.sans", "3 entries"),
                ("certificate.sans.2", "c"),
                ("certificate.shared", "true"),
                ("certificate.validity_period", "12"),
                ("certificate.domain_proofs.0.record_name", "_dnsauth"),
                ("certificate.signature_algorithm", "RSA"),
            ],
        ),
        (
            "CreateCsr",
            r#"{"create_time":"1767340566545","sans":"a,b"}"#,
            &[("csr.create_time", "1767340566545"), ("csr.sans.1", "b")],
        ),
        ("CheckCsr", r#"{"domain_name":"a.example.com"}"#, &[("domain", "a.example.com")]),
        ("CheckCsr", r#"{"domain":"a.example.com","domain_name":null}"#, &[("domain", "a.example.com")]),
        (
            "ReadInfo",
            r#"{"domain_name":"a.b","CSR":"pem","bl":"1","tl":0}"#,
            &[
                ("info.domain", "a.b"),
                ("info.csr", "pem"),
                ("bank_licence_uploaded", "true"),
                ("business_licence_uploaded", "false"),
            ],
        ),
    ] {
        let rpc = rpc(name);
        emulator.script(Step::Reply(Reply::json(200, body)));
        let reply = gateway.call(&rpc, samples::request(&rpc, Filling::Required)).await.unwrap().into_inner();
        for (path, expected) in values {
            assert_eq!(at(&reply, path), *expected, "{path} of {name}");
        }
    }
}
