//! Requests that are built from `operations.json`, with values that fit.

use serde_json::{Map, Value, json};

use crate::client::{Answer, Call, call};
use scm_emulator::{Emulator, SAMPLE_PROJECT};

/// Operations that the emulator does not answer: the v2 twins of others, and one whose encoding is not documented.
const NOT_OFFERED: [&str; 10] = [
    "CancelCertificate",
    "CompleteCertificate",
    "DeleteCertificateV2",
    "DownloadCertificate",
    "ListCertificatesV2",
    "ShowCertificateV2",
    "UploadCertificate",
    "PurchaseCertificate",
    "PushCertificateV2",
    "UploadAuthentication",
];

/// Returns the operations that the emulator answers.
pub(crate) fn offered() -> Vec<String> {
    let names = all().into_iter().map(|operation| operation["name"].as_str().unwrap().to_owned());
    names.filter(|name| !NOT_OFFERED.contains(&name.as_str())).collect()
}

pub(crate) const CSR_ID: &str = "48e392628b0f47769e47d91acc7654a5";

pub(crate) fn all() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../operations.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

pub(crate) fn named(name: &str) -> Value {
    all().into_iter().find(|operation| operation["name"] == name).unwrap()
}

pub(crate) fn fields<'a>(operation: &'a Value, place: &str) -> &'a [Value] {
    operation[place].as_array().unwrap()
}

pub(crate) fn csr() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../csr/rsa_2048.pem")).unwrap()
}

/// The parts of a request. `body` has the elements of an array as `items`.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) operation: Value,
    pub(crate) path: Map<String, Value>,
    pub(crate) query: Map<String, Value>,
    pub(crate) body: Option<Value>,
}

impl Request {
    /// Returns a request with a value that fits in each field.
    pub(crate) fn full(name: &str) -> Self {
        let operation = named(name);
        let object = |place| fields(&operation, place).iter().map(|field| (key(field), fitting(field))).collect();
        let body = || Value::Object(object("body"));
        let body = match operation["body_kind"].as_str().unwrap() {
            "none" => None,
            "array" => Some(json!([body()])),
            _ => Some(body()),
        };
        Self { path: object("path_params"), query: object("query"), body, operation }
    }

    /// Returns a request with these arguments only, side by side. `items` is a body that is an array.
    pub(crate) fn of(name: &str, arguments: &Value) -> Self {
        let operation = named(name);
        let object = |place| {
            let present = fields(&operation, place).iter().filter_map(|field| {
                let argument = arguments.get(key(field))?;
                Some((key(field), argument.clone()))
            });
            present.collect::<Map<_, _>>()
        };
        let mut path = object("path_params");
        if fields(&operation, "path_params").iter().any(|field| field["name"] == "project_id") {
            path.insert("project_id".to_owned(), SAMPLE_PROJECT.into());
        }
        let body = match operation["body_kind"].as_str().unwrap() {
            "none" => None,
            "array" => Some(arguments["items"].clone()),
            _ => Some(Value::Object(object("body"))),
        };
        Self { path, query: object("query"), body, operation }
    }

    pub(crate) fn call(&self) -> Call {
        let mut target = self.operation["path"].as_str().unwrap().to_owned();
        for (name, value) in &self.path {
            target = target.replace(&format!("{{{name}}}"), &encode(value.as_str().unwrap()));
        }
        let pair = |(key, value): (&String, &Value)| match value {
            Value::String(text) => format!("{}={}", encode(key), encode(text)),
            other => format!("{}={}", encode(key), encode(&other.to_string())),
        };
        let mut pairs: Vec<String> = self.query.iter().map(pair).collect();
        pairs.sort();
        if !pairs.is_empty() {
            target = format!("{target}?{}", pairs.join("&"));
        }
        let method =
            ["GET", "POST", "PUT", "DELETE"].into_iter().find(|method| self.operation["http_method"] == *method);
        Call { method: method.unwrap(), target, ..Call::to("", self.body.as_ref().map_or(vec![], bytes).as_slice()) }
    }

    pub(crate) async fn send(&self, emulator: &Emulator) -> Answer {
        call(emulator, &self.call().sign()).await
    }
}

/// Calls an operation with these arguments.
pub(crate) async fn invoke(emulator: &Emulator, name: &str, arguments: Value) -> Answer {
    Request::of(name, &arguments).send(emulator).await
}

/// Calls an operation, asserts its success, and returns the body, null if there is none.
pub(crate) async fn succeed(emulator: &Emulator, name: &str, arguments: Value) -> Value {
    let answer = invoke(emulator, name, arguments).await;
    let statuses = named(name)["success_status"].clone();
    let text = String::from_utf8_lossy(&answer.body);
    assert!(statuses.as_array().unwrap().contains(&answer.status.into()), "{name}: {} {text}", answer.status);
    if answer.body.is_empty() { Value::Null } else { answer.json() }
}

/// Calls an operation, and asserts its error.
pub(crate) async fn fail(emulator: &Emulator, name: &str, arguments: Value, status: u16, code: &str) {
    let answer = invoke(emulator, name, arguments.clone()).await;
    let text = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status, status, "{name} {arguments}: {text}");
    assert_eq!(answer.json()["error_code"], code, "{name} {arguments}: {text}");
}

fn bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn key(field: &Value) -> String {
    field["name"].as_str().unwrap().to_owned()
}

fn encode(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Returns a value that the field's rules allow.
pub(crate) fn fitting(field: &Value) -> Value {
    let known = match field["name"].as_str().unwrap() {
        "project_id" => Some(SAMPLE_PROJECT.to_owned()),
        "cert_id" | "certificate_id" | "resource_id" => Some("scs1481110651012".to_owned()),
        "id" if field["min_length"] == 32 || field["max_length"] == 40 => Some(CSR_ID.to_owned()),
        "domain" | "domain_name" | "add_sans" => Some("www.example.com".to_owned()),
        "sans" => Some(String::new()),
        "csr" => Some(csr()),
        "effective_time" | "domain_numbers" => return json!(1),
        "certificate_ids" => return json!(["scs1481110651012"]),
        _ => None,
    };
    if let Some(known) = known {
        return known.into();
    }
    if let Some(constant) = field.get("const") {
        return constant.clone();
    }
    if let Some(values) = field["enum"].as_array() {
        return values[0].clone();
    }
    let object = || fields(field, "nested").iter().map(|field| (key(field), fitting(field))).collect::<Value>();
    let text = |minimum: &str| "x".repeat(field[minimum].as_u64().unwrap_or(1).max(1) as usize);
    match (field["type"].as_str().unwrap(), field["items"].as_str()) {
        ("array", Some("object")) => json!([object()]),
        ("array", _) => json!([field["item_enum"].get(0).cloned().unwrap_or_else(|| text("item_min_length").into())]),
        ("object", _) => object(),
        ("boolean", _) => json!(false),
        ("integer", _) => field.get("minimum").cloned().unwrap_or_else(|| json!(1)),
        _ => text("min_length").into(),
    }
}
