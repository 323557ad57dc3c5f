//! Responses of every message, and values for every field of them.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Value, json};

use crate::harness::rpc::{Rules, inner, json_key};

/// Returns a response of this message, with one entry in each list, and these texts.
pub fn sample(descriptor: &MessageDescriptor, text: &dyn Fn(&FieldDescriptor) -> String) -> Value {
    let value = |field: &FieldDescriptor| {
        let value = match field.kind() {
            Kind::Message(descriptor) => sample(&descriptor, text),
            Kind::String => json!(Rules::of(field).acknowledgement.unwrap_or_else(|| text(field))),
            Kind::Bool => json!(true),
            _ => json!(3),
        };
        if field.is_list() && inner(field).is_some() { json!([value]) } else { value }
    };
    Value::Object(descriptor.fields().map(|field| (json_key(&field), value(&field))).collect())
}

/// Returns the fields of a message and of the messages in it, each with the pointer of its object.
pub fn leaves(descriptor: &MessageDescriptor, at: &str, found: &mut Vec<(String, FieldDescriptor)>) {
    for field in descriptor.fields().filter(|field| Rules::of(field).is_nonempty.is_none()) {
        found.push((at.to_owned(), field.clone()));
        if let Some(inner) = inner(&field) {
            let index = if field.is_list() { "/0" } else { "" };
            leaves(&inner, &format!("{at}/{}{index}", json_key(&field)), found);
        }
    }
}

/// Returns values for a field, and whether each can be read.
pub fn values(field: &FieldDescriptor) -> Vec<(Value, bool)> {
    let rules = Rules::of(field);
    let is_id = field.name() == "id" || field.name().ends_with("_id");
    if let Some(word) = rules.acknowledgement {
        let upper = word.to_uppercase();
        let bad = [json!("fail"), json!(""), json!(null), json!(1), json!(true), json!({}), json!([])];
        let good = [json!(upper), json!(upper.to_lowercase())];
        return good.map(|good| (good, true)).into_iter().chain(bad.map(|bad| (bad, false))).collect();
    }
    let (good, bad): (Vec<Value>, Vec<Value>) = match field.kind() {
        Kind::Message(_) if field.is_list() => (
            vec![json!(null), json!([]), json!({}), json!([{}, null, {"unknown": [1]}])],
            vec![json!("x"), json!(1), json!(true), json!(["x"]), json!([[]])],
        ),
        Kind::Message(_) => (vec![json!(null), json!({})], vec![json!("x"), json!(1), json!([]), json!([{}])]),
        Kind::String if rules.joined_by.is_some() => (
            vec![json!(null), json!(""), json!("a"), json!("a;b"), json!("a, b,;c"), json!(" ; ")],
            vec![json!(1), json!(true), json!({})],
        ),
        Kind::String if field.is_list() => (
            vec![json!(null), json!([]), json!("a;b"), json!(["a", null, " b "])],
            vec![json!(1), json!([1]), json!({}), json!([["a"]])],
        ),
        Kind::String if is_id => (
            vec![json!(null), json!(""), json!(" a\t"), json!(17), json!(-3), json!(u64::MAX)],
            vec![json!(1.5), json!(true), json!({}), json!(["a"])],
        ),
        Kind::String => (
            vec![json!(null), json!(""), json!(" a\n"), json!("x".repeat(9000)), json!("\u{0}中")],
            vec![json!(1), json!(false), json!({}), json!(["a"])],
        ),
        Kind::Bool => (
            vec![
                json!(null),
                json!(false),
                json!(0),
                json!(1),
                json!("True"),
                json!(" FALSE "),
                json!("0"),
                json!("1"),
            ],
            vec![json!(2), json!(-1), json!("yes"), json!("2"), json!({}), json!([true])],
        ),
        kind => {
            let (min, max) =
                if kind == Kind::Int64 { (i64::MIN, i64::MAX) } else { (i32::MIN.into(), i32::MAX.into()) };
            let outside = [(i128::from(min) - 1).to_string(), (i128::from(max) + 1).to_string()];
            let bare = outside[1].parse::<u64>().unwrap();
            (
                vec![
                    json!(null),
                    json!(0),
                    json!(-5),
                    json!("5"),
                    json!(" 5 "),
                    json!(min),
                    json!(max),
                    json!(max.to_string()),
                ],
                vec![
                    json!(1.5),
                    json!("x"),
                    json!("1.5"),
                    json!(true),
                    json!({}),
                    json!([1]),
                    json!(outside[0]),
                    json!(bare),
                ],
            )
        }
    };
    good.into_iter().map(|good| (good, true)).chain(bad.into_iter().map(|bad| (bad, false))).collect()
}
