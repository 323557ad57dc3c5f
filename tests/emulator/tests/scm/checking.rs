//! Each field of each operation: missing, of another type, too long, out of range, unknown.

use serde_json::{Map, Value, json};

use crate::client::{Answer, Call, call, start};
use crate::operations::{Request, all, fields, fitting, named, offered};

/// A text that no error may show.
const PLANTED: &str = "pLaNtEd";

/// Asserts that the answer is SCM.0005, names the key, and shows no value.
fn assert_names(answer: &Answer, key: &str, what: &str) {
    let text = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status, 400, "{what}: {text}");
    let body = answer.json();
    assert_eq!(body["error_code"], "SCM.0005", "{what}: {text}");
    let message = body["error_msg"].as_str().unwrap();
    assert!(message.contains(key), "{what}: {message}");
    assert!(!message.contains(PLANTED), "{what}: {message}");
}

/// A value that a field's rules forbid, and what is wrong with it.
fn wrong(field: &Value) -> Vec<(Value, &'static str)> {
    let mut wrong = Vec::new();
    let number = |rule: &str| field[rule].as_i64();
    let text = |length: i64| json!(PLANTED.chars().cycle().take(length as usize).collect::<String>());
    let list = |length: i64, item: Value| json!(vec![item; length as usize]);
    let kind = field["type"].as_str().unwrap();
    for (other, value) in [
        ("string", json!(PLANTED)),
        ("integer", json!(7)),
        ("boolean", json!(true)),
        ("array", json!([PLANTED])),
        ("object", json!({"a": PLANTED})),
        ("null", Value::Null),
        ("fraction", json!(1.5)),
    ] {
        if other != kind {
            wrong.push((value, "type"));
        }
    }
    match kind {
        "string" => {
            wrong.extend(number("max_length").map(|maximum| (text(maximum + 1), "too long")));
            wrong.extend(
                number("min_length").filter(|minimum| *minimum > 0).map(|minimum| (text(minimum - 1), "short")),
            );
        }
        "integer" => {
            wrong.extend(number("maximum").map(|maximum| (json!(maximum + 1), "too large")));
            wrong.extend(number("minimum").map(|minimum| (json!(minimum - 1), "too small")));
            wrong.push((json!(1_i64 << 40), "over 32 bits"));
        }
        "boolean" if field["const"] == json!(true) => wrong.push((json!(false), "const")),
        "array" => {
            let item = fitting(field)[0].clone();
            wrong.extend(number("max_items").map(|maximum| (list(maximum + 1, item.clone()), "too many")));
            wrong.extend(number("min_items").map(|minimum| (list(minimum - 1, item.clone()), "too few")));
            wrong.extend(number("item_max_length").map(|maximum| (json!([text(maximum + 1)]), "item too long")));
            wrong.extend(number("item_min_length").map(|minimum| (json!([text(minimum - 1)]), "item too short")));
            wrong.push((json!([item, 7]), "item type"));
        }
        _ => {}
    }
    if field.get("enum").is_some() || field.get("item_enum").is_some() {
        let other = if kind == "integer" { json!(11) } else { json!(PLANTED) };
        wrong.push((if kind == "array" { json!([other]) } else { other }, "none of the values"));
    }
    wrong
}

/// Returns bodies with one defect each: the body, the key that the error names, and the defect.
fn defects(
    field_list: &[Value],
    object: &Map<String, Value>,
    prefix: &str,
) -> Vec<(Map<String, Value>, String, String)> {
    let mut defects = Vec::new();
    let mut with = |key: &str, value: Option<Value>, named: String, what: &str| {
        let mut changed = object.clone();
        match value {
            Some(value) => changed.insert(key.to_owned(), value),
            None => changed.remove(key),
        };
        defects.push((changed, named, what.to_owned()));
    };
    with("surplus", Some(json!(PLANTED)), format!("{prefix}surplus"), "unknown key");
    for field in field_list {
        let key = field["name"].as_str().unwrap();
        let named = format!("{prefix}{key}");
        if field["required"] == true {
            with(key, None, named.clone(), "missing");
        }
        for (value, what) in wrong(field) {
            with(key, Some(value), named.clone(), what);
        }
        let is_list = field["type"] == "array";
        let nested = field.get("nested").and_then(Value::as_array);
        let Some(nested) = nested else { continue };
        let inner = if is_list { &object[key][0] } else { &object[key] };
        let prefix = if is_list { format!("{named}[0].") } else { format!("{named}.") };
        for (changed, named, what) in self::defects(nested, inner.as_object().unwrap(), &prefix) {
            let changed = Value::Object(changed);
            with(key, Some(if is_list { json!([changed]) } else { changed }), named, &what);
        }
    }
    defects
}

#[tokio::test]
async fn every_defect_of_every_field_is_rejected() {
    let emulator = start().await;
    let mut rejected = 0;
    for name in &offered() {
        let operation = named(name);
        let request = Request::full(name);
        let mut requests = Vec::new();
        for field in fields(&operation, "path_params").iter().filter(|field| field["name"] != "project_id") {
            for (value, what) in wrong(field).into_iter().filter(|(value, _)| value.is_string() && value != "") {
                let mut changed = request.clone();
                changed.path.insert(field["name"].as_str().unwrap().to_owned(), value);
                requests.push((changed, field["name"].as_str().unwrap().to_owned(), what.to_owned()));
            }
        }
        for (query, key, what) in defects(fields(&operation, "query"), &request.query, "") {
            // In a query, everything is text, so that a value of another type may be right.
            let is_text =
                |key: &str| fields(&operation, "query").iter().any(|f| f["name"] == key && f["type"] == "string");
            if !(what == "type" && is_text(&key)) {
                requests.push((Request { query, ..request.clone() }, key, what));
            }
        }
        match &request.body {
            None => {
                let body = Some(json!({"a": PLANTED}));
                requests.push((Request { body, ..request.clone() }, "body".to_owned(), "a body".to_owned()));
            }
            Some(Value::Array(items)) => {
                for (item, key, what) in defects(fields(&operation, "body"), items[0].as_object().unwrap(), "[0].") {
                    requests.push((Request { body: Some(json!([item])), ..request.clone() }, key, what));
                }
                for body in [json!({}), json!([PLANTED])] {
                    requests.push((Request { body: Some(body), ..request.clone() }, String::new(), "type".to_owned()));
                }
            }
            Some(body) => {
                for (body, key, what) in defects(fields(&operation, "body"), body.as_object().unwrap(), "") {
                    requests.push((Request { body: Some(body.into()), ..request.clone() }, key, what));
                }
                for body in [json!([]), json!(null), json!(PLANTED)] {
                    requests.push((
                        Request { body: Some(body), ..request.clone() },
                        "body".to_owned(),
                        "type".to_owned(),
                    ));
                }
            }
        }
        for (request, key, what) in requests {
            assert_names(&request.send(&emulator).await, &key, &format!("{name} {key}: {what}"));
            rejected += 1;
        }
    }
    assert!(rejected > 1_100, "{rejected}");
    assert_eq!(emulator.rejections(), []);
}

#[tokio::test]
async fn requests_within_the_limits_pass_the_checks() {
    let emulator = start().await;
    for name in &offered() {
        let operation = named(name);
        let request = Request::full(name);
        let mut requests = vec![request.clone()];
        for field in fields(&operation, "body").iter().filter(|field| field.get("enum").is_none()) {
            let (Some(maximum), Some(mut body)) = (field["max_length"].as_u64(), request.body.clone()) else {
                continue;
            };
            if body.is_array() {
                continue;
            }
            body[field["name"].as_str().unwrap()] = "华".repeat(maximum as usize).into();
            requests.push(Request { body: Some(body), ..request.clone() });
        }
        for request in requests {
            let answer = request.send(&emulator).await;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            let refusals = ["too long", "too short", "unknown", "is not a", "out of range", "possible", "elements"];
            let is_refused = text.contains("SCM.0005") && refusals.iter().any(|refusal| text.contains(refusal));
            assert!(!is_refused, "{name}: {text}");
        }
    }
}

#[tokio::test]
async fn duplicate_keys_and_other_content_are_rejected() {
    let emulator = start().await;
    for name in &offered() {
        let request = Request::full(name);
        let Some(body) = &request.body else { continue };
        let text = body.to_string();
        let key = text.split('"').nth(1).unwrap();
        let twice = text.replacen('{', &format!(r#"{{"{key}":"{PLANTED}","#), 1);
        let duplicate = request.call().with(|call| call.body = twice.into_bytes());
        assert_names(&call(&emulator, &duplicate.sign()).await, key, name);
        for content in ["", "{", PLANTED, "\u{feff}{}"] {
            let other = request.call().with(|call| call.body = content.as_bytes().to_vec());
            assert_names(&call(&emulator, &other.sign()).await, "body", name);
        }
        let plain = request.call().set("Content-Type", "text/plain");
        assert_names(&call(&emulator, &plain.sign()).await, "content type", name);
    }
    let twice = Call { method: "GET", target: "/v3/scm/csr?limit=10&limit=20".to_owned(), ..Call::read() };
    assert_names(&call(&emulator, &twice.sign()).await, "limit", "ListCsr");
}

#[tokio::test]
async fn only_the_offered_operations_exist() {
    let emulator = start().await;
    let offered = offered();
    let mut absent = 0;
    for operation in all() {
        let name = operation["name"].as_str().unwrap();
        let answer = Request::full(name).send(&emulator).await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        if offered.iter().any(|offered| offered == name) {
            assert!(!text.contains("APIG."), "{name}: {text}");
        } else {
            assert!([404, 405].contains(&answer.status) && text.contains("APIG.0101"), "{name}: {text}");
            absent += 1;
        }
    }
    assert_eq!(absent, 10);
}

#[tokio::test]
async fn a_path_with_another_method_names_the_methods() {
    let emulator = start().await;
    for (path, allowed) in [
        ("/v3/scm/certificates/scs1481110651012", "DELETE, GET"),
        ("/v3/scm/csr/upload", "DELETE, GET, POST, PUT"),
        ("/v3/scm/resource_instances/action", "POST"),
        ("/v3/scm/tags", "GET"),
    ] {
        let patch = Call { method: "PATCH", target: path.to_owned(), ..Call::read() };
        let answer = call(&emulator, &patch.sign()).await;
        let mut methods: Vec<&str> = answer.header("Allow").split(", ").collect();
        methods.sort_unstable();
        assert_eq!((answer.status, methods.join(", ").as_str()), (405, allowed), "{path}");
    }
    let other = Call { target: "/v3/scm/scs1481110651012/action".to_owned(), ..Call::to("", b"{}") };
    assert_names(&call(&emulator, &other.sign()).await, "resource_instances", "the literal of the path");
}

#[test]
fn the_table_has_defects_of_every_kind() {
    let mut seen: Vec<String> = offered()
        .iter()
        .flat_map(|name| {
            let operation = named(name);
            ["path_params", "query", "body"].map(|place| {
                let all = fields(&operation, place).iter().flat_map(wrong).map(|(_, what)| what.to_owned());
                all.collect::<Vec<_>>()
            })
        })
        .flatten()
        .collect();
    seen.sort_unstable();
    seen.dedup();
    let expected = [
        "const",
        "item too long",
        "item too short",
        "item type",
        "none of the values",
        "over 32 bits",
        "short",
        "too few",
        "too large",
        "too long",
        "too many",
        "too small",
        "type",
    ];
    assert_eq!(seen, expected);
}
