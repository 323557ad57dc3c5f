//! Responses that differ from what the vendor documents: every field of every reply, by its type.

use scm_emulator::{Emulator, Reply, Step};
use serde_json::{Map, Value, json};
use tonic::Code;

use crate::{
    harness::{
        Gateway, assert_status, emulator,
        facts::success_statuses,
        rpc::{Rpc, Rules, inner, json_key, rpc, rpcs},
        samples::{self, Filling},
    },
    reading,
};

pub mod values;

use values::{leaves, sample, values};

/// Returns the JSON with another value for a key of the object at the pointer.
fn replaced(json: &Value, at: &str, change: impl FnOnce(&mut Map<String, Value>)) -> String {
    let mut json = json.clone();
    change(json.pointer_mut(at).unwrap().as_object_mut().unwrap());
    json.to_string()
}

struct Calls {
    emulator: Emulator,
    gateway: Gateway,
}

impl Calls {
    async fn new() -> Self {
        let emulator = emulator().await;
        let gateway = Gateway::serving_all(&emulator, &[]).await;
        Self { emulator, gateway }
    }

    /// Asserts that a response gives the expected reply, or UPSTREAM_MALFORMED.
    async fn assert(&self, rpc: &Rpc, status: u16, body: &str, is_success: bool) {
        self.emulator.script(Step::Reply(Reply::json(status, body)));
        let result = self.gateway.call(rpc, samples::request(rpc, Filling::Required)).await;
        let what = format!("{} {status} {}", rpc.name(), body.get(..300).unwrap_or(body));
        match (result, is_success) {
            (Ok(reply), true) => assert_eq!(Ok(reply.into_inner()), reading::reply(rpc, body), "{what}"),
            (Err(status), false) => assert_status(&status, Code::Internal, "UPSTREAM_MALFORMED", Some(1)),
            (result, _) => panic!("{what}: {result:?}"),
        }
    }
}

#[tokio::test]
async fn every_field_of_a_reply_is_read_by_its_type() {
    let calls = Calls::new().await;
    for rpc in rpcs().into_iter().filter(|rpc| rpc.name() != "ReadInfo") {
        let (status, descriptor) = (rpc.success_statuses[0], rpc.reply_object());
        let json = sample(&descriptor, &|_| "text".to_owned());
        calls.assert(&rpc, status, &json.to_string(), true).await;
        let mut fields = Vec::new();
        leaves(&descriptor, "", &mut fields);
        for (at, field) in fields {
            let key = json_key(&field);
            for (value, is_readable) in values(&field) {
                let body = replaced(&json, &at, |object| _ = object.insert(key.clone(), value));
                calls.assert(&rpc, status, &body, is_readable).await;
            }
            let is_needed = Rules::of(&field).acknowledgement.is_some();
            let missing = replaced(&json, &at, |object| _ = object.remove(&key));
            calls.assert(&rpc, status, &missing, !is_needed).await;
            let upper = replaced(&json, &at, |object| {
                let value = object.remove(&key).unwrap();
                object.insert(key.to_uppercase(), value);
            });
            calls.assert(&rpc, status, &upper, !is_needed).await;
            let blanks = replaced(&json, &at, |object| {
                let value = object.remove(&key).unwrap();
                object.insert(format!(" {key}\t"), value);
                object.insert("unknown ".to_owned(), json!({"deep": [{"error_code": "x", key.clone(): []}]}));
            });
            calls.assert(&rpc, status, &blanks, true).await;
        }
    }
}

/// Returns the JSON with a first value of a key before the value that it has.
fn twice(json: &Value, at: &str, key: &str, first: &Value) -> String {
    let marked = replaced(json, at, |object| {
        let last = object.remove(key).unwrap();
        object.insert("\u{1}".to_owned(), last); // sorts first
    });
    marked.replacen(r#""\u0001":"#, &format!(r#""{key} ":{first},"{key}":"#), 1)
}

#[tokio::test]
async fn last_value_of_a_key_counts_except_for_acknowledgements() {
    let calls = Calls::new().await;
    for rpc in rpcs().into_iter().filter(|rpc| rpc.name() != "ReadInfo") {
        let (status, descriptor) = (rpc.success_statuses[0], rpc.reply_object());
        let json = sample(&descriptor, &|_| "text".to_owned());
        let mut fields = Vec::new();
        leaves(&descriptor, "", &mut fields);
        for (at, field) in fields {
            let is_acknowledgement = Rules::of(&field).acknowledgement.is_some();
            let (first, _) =
                values(&field).into_iter().find(|(value, is_readable)| *is_readable && !value.is_null()).unwrap();
            let body = twice(&json, &at, &json_key(&field), &first);
            calls.emulator.script(Step::Reply(Reply::json(status, &body)));
            let result = calls.gateway.call(&rpc, samples::request(&rpc, Filling::Required)).await;
            if is_acknowledgement {
                assert_status(&result.unwrap_err(), Code::Internal, "UPSTREAM_MALFORMED", Some(1));
            } else {
                let reply = result.unwrap_or_else(|status| panic!("{body}: {status:?}")).into_inner();
                assert_eq!(Ok(reply), reading::reply(&rpc, &json.to_string()), "{body}");
            }
        }
    }
}

#[tokio::test]
async fn success_statuses_and_empty_bodies_are_those_of_the_method() {
    let calls = Calls::new().await;
    for rpc in rpcs() {
        let successes = success_statuses(&rpc);
        let may_be_empty = successes.contains(&204);
        let (_, body) = rpc.success();
        for status in [200, 201, 202, 203, 206, 299, 301, 302, 304, 399] {
            let is_success = successes.contains(&status);
            if status != 304 {
                calls.assert(&rpc, status, &body, is_success).await;
            }
            calls.assert(&rpc, status, "", is_success && may_be_empty).await;
        }
        for malformed in ["[]", "null", "1", "\"success\"", "text", "{", "{} {}", "[{}]", "\u{feff}{}"] {
            calls.assert(&rpc, rpc.success_statuses[0], malformed, false).await;
        }
        calls.assert(&rpc, 204, "", may_be_empty).await;
        if may_be_empty {
            calls.assert(&rpc, 200, " \r\n\t", true).await;
        }
    }
}

#[tokio::test]
async fn an_error_body_is_an_error_whatever_the_success_status() {
    let calls = Calls::new().await;
    for rpc in rpcs() {
        let (_, success) = rpc.success();
        let fields = success.trim_start_matches('{').trim_end_matches('}');
        let separator = if fields.is_empty() { "" } else { "," };
        for status in [200, 201, 202, 206] {
            for (error, expected) in [
                (r#""error_code":"SCM.0010""#, Some((Code::FailedPrecondition, "CERTIFICATE_STATE"))),
                (r#""error_msg":"x","errorCode ":"SCM.0003""#, Some((Code::PermissionDenied, "CERTIFICATE_NOT_OWNED"))),
                (r#""error":{"code":"SCM.0707"}"#, Some((Code::NotFound, "RESOURCE_NOT_FOUND"))),
                (r#""code":"APIG.0308""#, Some((Code::ResourceExhausted, "UPSTREAM_THROTTLED"))),
                (r#""error_code":"SCM.9999""#, None),
                (r#""error_msg":"no code""#, None),
                (r#""error_code":"SCM.0010","error_code":"SCM.0003""#, None),
            ] {
                let (code, reason) = expected.unwrap_or((Code::Internal, "UPSTREAM_MALFORMED"));
                // A cooldown follows the throttled call.
                let calls = if reason == "UPSTREAM_THROTTLED" { &Calls::new().await } else { &calls };
                let body = format!("{{{fields}{separator}{error}}}");
                calls.emulator.script(Step::Reply(Reply::json(status, &body)));
                let result = calls.gateway.call(&rpc, samples::request(&rpc, Filling::Required)).await;
                let error = result.err().unwrap_or_else(|| panic!("{} {status} {body}", rpc.name()));
                assert_status(&error, code, reason, Some(1));
            }
            if rpc.success_statuses.contains(&status) {
                let nulls = format!("{{{fields}{separator}\"error_code\":null,\"error_msg\":null}}");
                calls.assert(&rpc, status, &nulls, true).await;
            }
        }
    }
}

#[tokio::test]
async fn read_info_reads_every_key_tolerantly() {
    let (calls, rpc) = (Calls::new().await, rpc("ReadInfo"));
    let info = rpc.method.output().get_field_by_name("info").unwrap();
    let descriptor = inner(&info).unwrap();
    for field in descriptor.fields().filter(|field| field.name() != "agree_privacy_protection") {
        let key = match field.name() {
            "domain" => "domain_name",
            "csr" => "CSR",
            name => name,
        };
        for (value, is_readable) in values(&field) {
            calls.assert(&rpc, 200, &json!({ format!(" {key} "): value }).to_string(), is_readable).await;
        }
    }
    for flag in ["bl", "tl"] {
        let field = rpc.method.output().get_field_by_name("bank_licence_uploaded").unwrap();
        for (value, is_readable) in values(&field) {
            calls.assert(&rpc, 200, &json!({ flag: value }).to_string(), is_readable).await;
        }
    }
}
