//! The requests of the vendor's SDK: each call reaches SCM as the same request.

use std::collections::BTreeSet;

use prost_reflect::{DynamicMessage, FieldDescriptor, ReflectMessage as _, Value as Field};
use scm_emulator::{Recorded, Reply, SAMPLE_PROJECT, Step};
use serde_json::{Map, Value};
use tonic::Code;

use crate::harness::{
    Gateway, assert_status, emulator, fields,
    rpc::{Rpc, Rules, json_key, rpc, rpcs},
    samples::{self, Filling},
};

/// The domain of the vendor's requests.
const DOMAIN_ID: &str = "fedcba9876543210fedcba9876543210";

/// Fields that have another name than the SDK's argument.
const ARGUMENTS: [(&str, &str); 4] =
    [("certificate_id", "cert_id"), ("resource_id", "cert_id"), ("id", "csr_id"), ("items", "notices")];

/// An argument that is part of the path, and always the same.
const CONSTANT: &str = "resource_instances";

/// Headers of one side only, and why.
const OTHER_HEADERS: [(&str, &str); 6] = [
    ("accept-encoding", "a default of the SDK's HTTP client; the gateway reads uncompressed responses"),
    ("connection", "the default of HTTP/1.1"),
    ("authorization", "depends on the time; the emulator verifies it"),
    ("x-sdk-date", "the time"),
    ("user-agent", "the gateway's"),
    ("traceparent", "the gateway's"),
];

/// Headers of both sides whose values differ, and why.
const OTHER_VALUES: [(&str, &str); 2] =
    [("host", "the emulator's"), ("content-length", "the SDK escapes characters and adds blanks")];

/// Cases that the gateway sends in another way: the change to the vendor's body.
const CHANGED: [(&str, &str, &str, &str); 1] =
    [("ApplyCertificate", "empty strings and false are sent", "sans", "an empty list is left out")];

/// PEM texts that are sent without the line ends around them, which the SDK does not remove.
const TRIMMED: [&str; 3] = ["certificate", "certificate_chain", "private_key"];

/// Cases that the gateway rejects: the field, and why.
const REJECTED: [(&str, &str, &str, &str); 2] = [
    ("ApplyCertificate", "full, non-ASCII", "csr", "the CSR does not name the domain *.example.com"),
    ("DisableNotification", "empty list", "notices", "an empty list changes nothing"),
];

/// Sets the fields of a message from JSON.
fn fill(message: &mut DynamicMessage, values: &Map<String, Value>) {
    for (name, value) in values {
        let field = message.descriptor().fields().find(|field| json_key(field) == *name).expect(name);
        let value = field_value(&field, value);
        message.set_field(&field, value);
    }
}

fn field_value(field: &FieldDescriptor, value: &Value) -> Field {
    match (field.kind().as_message(), value) {
        (_, Value::Array(entries)) => Field::List(entries.iter().map(|entry| field_value(field, entry)).collect()),
        (Some(descriptor), Value::Object(values)) => {
            let mut message = DynamicMessage::new(descriptor.clone());
            fill(&mut message, values);
            Field::Message(message)
        }
        (None, Value::String(text)) => match Rules::of(field).joined_by {
            Some(separator) => {
                let entries = text.split(&separator).filter(|entry| !entry.is_empty());
                Field::List(entries.map(|entry| Field::String(entry.to_owned())).collect())
            }
            None => Field::String(text.clone()),
        },
        (None, Value::Bool(flag)) => Field::Bool(*flag),
        (None, Value::Number(number)) => samples::number(field, number.as_i64().unwrap()),
        other => panic!("{other:?} for {}", field.full_name()),
    }
}

/// Returns the request of a case.
fn request(rpc: &Rpc, arguments: &Value) -> DynamicMessage {
    let mut arguments = arguments.as_object().unwrap().clone();
    arguments.remove(CONSTANT);
    let mut message = DynamicMessage::new(rpc.method.input());
    for (theirs, ours) in ARGUMENTS {
        let is_ours = rpc.method.input().get_field_by_name(ours).is_some();
        if is_ours && let Some(value) = arguments.remove(theirs) {
            arguments.insert(ours.to_owned(), value);
        }
    }
    fill(&mut message, &arguments);
    message
}

fn names(headers: impl Iterator<Item = String>) -> BTreeSet<String> {
    headers.filter(|name| !OTHER_HEADERS.iter().any(|(other, _)| name == other)).collect()
}

fn assert_same(name: &str, case: &str, sent: &Recorded, expected: &Value) {
    let what = format!("{name}, {case}");
    let (path, query) = sent.target.split_once('?').unwrap_or((&sent.target, ""));
    let of = |key: &str| expected[key].as_str().unwrap().to_owned();
    assert_eq!((sent.method.clone(), path.to_owned(), query.to_owned()), (of("method"), of("path"), of("query")));
    let mut body = expected["body"].as_str().map(|body| serde_json::from_str::<Value>(body).unwrap());
    for (_, _, key, _) in CHANGED.iter().filter(|change| (change.0, change.1) == (name, case)) {
        let object = body.as_mut().and_then(Value::as_object_mut).unwrap();
        assert!(object.remove(*key).is_some(), "{what}: {key}");
    }
    for key in TRIMMED {
        if let Some(text) = body.as_mut().and_then(|body| body.get_mut(key)) {
            *text = text.as_str().unwrap().trim_matches(['\r', '\n']).into();
        }
    }
    let sent_body = (!sent.body.is_empty()).then(|| serde_json::from_slice::<Value>(&sent.body).unwrap());
    assert_eq!(sent_body, body, "{what}");
    let theirs = expected["headers"].as_object().unwrap();
    let ours = names(sent.headers.iter().map(|(name, _)| name.to_ascii_lowercase()));
    assert_eq!(ours, names(theirs.keys().cloned()), "{what}");
    for name in ours.iter().filter(|name| !OTHER_VALUES.iter().any(|(other, _)| name == other)) {
        assert_eq!(sent.header(name), theirs[name].as_str(), "{name} of {what}");
    }
}

#[tokio::test]
async fn requests_are_those_of_the_vendors_sdk() {
    let file: Value = serde_json::from_str(include_str!("../wire_v3.json")).unwrap();
    let emulator = emulator().await;
    let gateway = Gateway::serving_all(&emulator, &[("HUAWEICLOUD_SDK_DOMAIN_ID", DOMAIN_ID)]).await;
    let mut called = BTreeSet::new();
    for case in file["cases"].as_array().unwrap() {
        let (name, text) = (case["operation"].as_str().unwrap(), case["case"].as_str().unwrap());
        let rpc = rpc(name);
        let request = request(&rpc, &case["arguments"]);
        if let Some((_, _, field, _)) = REJECTED.iter().find(|rejected| (rejected.0, rejected.1) == (name, text)) {
            let status = gateway.call(&rpc, request).await.unwrap_err();
            assert_status(&status, Code::InvalidArgument, "INVALID_REQUEST", None);
            assert_eq!(fields(&status), [*field]);
            continue;
        }
        let (status, body) = rpc.success();
        emulator.script(Step::Reply(Reply::json(status, &body)));
        gateway.call(&rpc, request).await.unwrap_or_else(|status| panic!("{name}, {text}: {status:?}"));
        let sent = emulator.take_journal().pop().unwrap();
        assert_same(name, text, &sent, &case["request"]);
        called.insert(name.to_owned());
    }
    let v3 = rpcs().into_iter().filter(|rpc| rpc.template.starts_with("/v3/"));
    assert_eq!(called, v3.map(|rpc| rpc.name().to_owned()).collect());
    assert_eq!(emulator.rejections(), []);
}

#[tokio::test]
async fn scope_header_is_the_domain_for_v3_paths_if_it_is_known() {
    for (variables, v2, v3) in [
        (&[][..], Some(("x-project-id", SAMPLE_PROJECT)), Some(("x-project-id", SAMPLE_PROJECT))),
        (
            &[("HUAWEICLOUD_SDK_DOMAIN_ID", DOMAIN_ID)],
            Some(("x-project-id", SAMPLE_PROJECT)),
            Some(("x-domain-id", DOMAIN_ID)),
        ),
        (&[("HUAWEICLOUD_SDK_DOMAIN_ID", DOMAIN_ID), ("SCM_GATEWAY__UPSTREAM__SEND_PROJECT_ID", "false")], None, None),
    ] {
        let emulator = emulator().await;
        let gateway = Gateway::serving_all(&emulator, variables).await;
        for rpc in rpcs() {
            let (status, body) = rpc.success();
            emulator.script(Step::Reply(Reply::json(status, &body)));
            let request = samples::request(&rpc, Filling::All);
            gateway.call(&rpc, request).await.unwrap_or_else(|status| panic!("{}: {status:?}", rpc.name()));
            let sent = emulator.take_journal().pop().unwrap();
            let seen: Vec<_> = ["x-project-id", "x-domain-id"]
                .into_iter()
                .filter_map(|name| sent.header(name).map(|value| (name, value)))
                .collect();
            let expected = if rpc.template.starts_with("/v3/") { v3 } else { v2 };
            assert_eq!(seen, Vec::from_iter(expected), "{} with {variables:?}", rpc.name());
            let signed = sent.header("authorization").unwrap().to_owned();
            let is_signed = expected.is_none_or(|(name, _)| signed.contains(&format!(";{name}")));
            assert!(is_signed, "{signed}");
        }
    }
}
