//! The request of every RPC follows from its annotations: method, path, query and body.

use prost_reflect::{DynamicMessage, Kind, ReflectMessage as _, Value as Field};
use scm_emulator::{Reply, SAMPLE_PROJECT, Step};
use serde_json::{Map, Value, json};

use crate::harness::{
    Gateway, emulator,
    rpc::{Rpc, Rules, get, json_key, rpcs},
    samples::{self, Filling},
};

fn value(rules: &Rules, value: &Field) -> Value {
    match value {
        Field::List(entries) if rules.joined_by.is_some() => {
            let entries: Vec<_> = entries.iter().map(|entry| entry.as_str().unwrap()).collect();
            json!(entries.join(rules.joined_by.as_deref().unwrap()))
        }
        Field::List(entries) => entries.iter().map(|entry| self::value(rules, entry)).collect(),
        Field::Message(message) => Value::Object(object(message, &[])),
        Field::String(text) => json!(text),
        Field::Bool(flag) => json!(flag),
        Field::I32(number) => json!(number),
        Field::I64(number) => json!(number),
        other => panic!("{other:?}"),
    }
}

/// Returns a message as JSON, without some fields.
fn object(message: &DynamicMessage, without: &[&str]) -> Map<String, Value> {
    let mut object = Map::new();
    for field in message.descriptor().fields().filter(|field| !without.contains(&field.name())) {
        let (rules, content) = (Rules::of(&field), get(message, field.name()));
        let is_unset = field.supports_presence() && !message.has_field(&field);
        let is_empty = field.is_list() && content.as_list().unwrap().is_empty() && !rules.send_empty;
        if !(rules.routing_only || is_unset || is_empty) {
            object.insert(json_key(&field), value(&rules, &content));
        }
    }
    object
}

/// Returns a parameter's value. The samples have no characters that are encoded.
fn parameter(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Returns the method, the target and the body of a request.
fn expected(rpc: &Rpc, request: &DynamicMessage) -> (String, String, Option<Value>) {
    let verb = rpc.verb.clone();
    let variables = rpc.variables();
    let mut target = rpc.template.replace("{project_id}", SAMPLE_PROJECT);
    for variable in &variables {
        target = target.replace(&format!("{{{variable}}}"), get(request, variable).as_str().unwrap());
    }
    match rpc.body.as_str() {
        "*" => (verb, target, Some(Value::Object(object(request, &variables)))),
        "" => {
            let query = object(request, &variables); // sorted by key
            let query: Vec<_> = query.iter().map(|(key, value)| format!("{key}={}", parameter(value))).collect();
            let separator = if query.is_empty() { "" } else { "?" };
            (verb, format!("{target}{separator}{}", query.join("&")), None)
        }
        name => {
            let field = rpc.method.input().get_field_by_name(name).unwrap();
            (verb, target, Some(value(&Rules::of(&field), &get(request, name))))
        }
    }
}

#[tokio::test]
async fn requests_follow_from_the_annotations() {
    let emulator = emulator().await;
    let gateway = Gateway::serving_all(&emulator, &[]).await;
    for rpc in rpcs() {
        for filling in [Filling::Required, Filling::All] {
            let request = samples::request(&rpc, filling);
            let (status, body) = rpc.success();
            emulator.script(Step::Reply(Reply::json(status, &body)));
            gateway.call(&rpc, request.clone()).await.unwrap_or_else(|status| panic!("{}: {status:?}", rpc.name()));
            let sent = emulator.take_journal().pop().unwrap();
            let sent_body = (!sent.body.is_empty()).then(|| serde_json::from_slice(&sent.body).unwrap());
            assert_eq!((sent.method, sent.target, sent_body), expected(&rpc, &request), "{}", rpc.name());
        }
    }
    assert_eq!(emulator.rejections(), []);
}

/// A value never changes the path or adds a parameter.
#[tokio::test]
async fn every_character_of_a_query_is_encoded() {
    let emulator = emulator().await;
    let gateway = Gateway::serving_all(&emulator, &[]).await;
    let text = " &=?#/%+;~é中\u{1f600}";
    let encoded = "%20%26%3D%3F%23%2F%25%2B%3B~%C3%A9%E4%B8%AD%F0%9F%98%80";
    for rpc in rpcs().into_iter().filter(|rpc| rpc.body.is_empty()) {
        for field in rpc.method.input().fields().filter(|field| field.kind() == Kind::String) {
            let is_free = field.supports_presence() && Rules::of(&field).words.is_empty();
            if !is_free {
                continue;
            }
            let mut request = samples::request(&rpc, Filling::Required);
            request.set_field(&field, Field::String(text.to_owned()));
            emulator.script(Step::Reply(Reply::json(200, "{}")));
            gateway.call(&rpc, request).await.unwrap();
            let sent = emulator.take_journal().pop().unwrap();
            assert!(sent.target.ends_with(&format!("?{}={encoded}", field.name())), "{}", sent.target);
        }
    }
    assert_eq!(emulator.rejections(), []);
}
