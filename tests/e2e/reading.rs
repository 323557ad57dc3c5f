//! Reads responses of SCM by the rules of the contract, with code of its own: what a test expects of the gateway.

use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value as Field};
use serde_json::Value;

use crate::harness::rpc::{Rpc, Rules, json_key};

/// The JSON keys of ReadInfo that are not the fields of `info`.
const READ_INFO: [(&str, &str); 2] = [("domain_name", "domain"), ("CSR", "csr")];
const READ_INFO_FLAGS: [(&str, &str); 2] = [("bl", "bank_licence_uploaded"), ("tl", "business_licence_uploaded")];

/// What cannot be read as its type, with the field.
#[derive(Debug, PartialEq)]
pub struct Malformed(String);

/// Returns the reply that a response with this body has to give.
pub fn reply(rpc: &Rpc, body: &str) -> Result<DynamicMessage, Malformed> {
    let malformed = || Malformed("body".to_owned());
    let mut reply = DynamicMessage::new(rpc.method.output());
    if rpc.empty_reply && body.trim().is_empty() {
        return Ok(reply);
    }
    let json: Value = serde_json::from_str(body).map_err(|_| malformed())?;
    if !json.is_object() {
        return Err(malformed());
    }
    if rpc.name() == "ReadInfo" {
        read_info(&mut reply, &json)?;
    } else if rpc.response_body.is_empty() {
        reply = message(&rpc.method.output(), &json)?;
    } else {
        let inner = message(&rpc.reply_object(), &json)?;
        reply.set_field_by_name(&rpc.response_body, Field::Message(inner));
    }
    // As it is on the wire: without defaults.
    Ok(DynamicMessage::decode(reply.descriptor(), reply.encode_to_vec().as_slice()).unwrap())
}

fn read_info(reply: &mut DynamicMessage, json: &Value) -> Result<(), Malformed> {
    let mut renamed = serde_json::Map::new();
    for (key, value) in json.as_object().unwrap() {
        let key = key.trim();
        let hidden = ["domain", "csr", "agree_privacy_protection"].contains(&key);
        let name = READ_INFO.iter().find(|(theirs, _)| *theirs == key).map_or(key, |(_, ours)| ours);
        if !hidden {
            renamed.insert(name.to_owned(), value.clone());
        }
        if let Some((_, flag)) = READ_INFO_FLAGS.iter().find(|(theirs, _)| *theirs == key) {
            let field = reply.descriptor().get_field_by_name(flag).unwrap();
            if let Some(value) = single(&field, value)? {
                reply.set_field(&field, value);
            }
        }
    }
    let info = reply.descriptor().get_field_by_name("info").unwrap();
    let inner = message(info.kind().as_message().unwrap(), &Value::Object(renamed))?;
    reply.set_field(&info, Field::Message(inner));
    Ok(())
}

fn message(descriptor: &MessageDescriptor, json: &Value) -> Result<DynamicMessage, Malformed> {
    let object = json.as_object().ok_or_else(|| Malformed(descriptor.name().to_owned()))?;
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        let rules = Rules::of(&field);
        let keys = [vec![json_key(&field)], rules.json_aliases.clone()].concat();
        let values: Vec<_> = object.iter().filter(|(key, _)| keys.iter().any(|name| name == key.trim())).collect();
        for (_, value) in values {
            let read = if field.is_list() { list(&field, &rules, value)? } else { single(&field, value)? };
            if let Some(read) = read.filter(|_| rules.is_nonempty.is_none()) {
                message.set_field(&field, read);
            }
        }
        if let Some(word) = &rules.acknowledgement {
            let is_acknowledged = message.get_field(&field).as_str().unwrap().eq_ignore_ascii_case(word);
            is_acknowledged.then_some(()).ok_or_else(|| Malformed(field.name().to_owned()))?;
        }
    }
    for field in descriptor.fields() {
        if let Some(other) = Rules::of(&field).is_nonempty {
            let is_set = !message.get_field_by_name(&other).unwrap().as_str().unwrap().is_empty();
            message.set_field(&field, Field::Bool(is_set));
        }
    }
    Ok(message)
}

/// Reads a list, which may be null, or one entry without its list.
fn list(field: &FieldDescriptor, rules: &Rules, value: &Value) -> Result<Option<Field>, Malformed> {
    let entries = match value {
        Value::Array(entries) => entries.as_slice(),
        one => std::slice::from_ref(one),
    };
    let mut list = Vec::new();
    for entry in entries {
        list.extend(single(field, entry)?);
    }
    if rules.joined_by.is_some() {
        let parts = list.iter().flat_map(|text| text.as_str().unwrap().split([';', ','])).map(str::trim);
        list = parts.filter(|part| !part.is_empty()).map(|part| Field::String(part.to_owned())).collect();
    }
    Ok(Some(Field::List(list)))
}

/// Reads a value that is no list, `None` for null.
fn single(field: &FieldDescriptor, value: &Value) -> Result<Option<Field>, Malformed> {
    let is_id = field.name() == "id" || field.name().ends_with("_id");
    let number = || match value {
        Value::Number(number) => number.to_string().parse::<i128>().ok(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let read = match (field.kind(), value) {
        (_, Value::Null) => return Ok(None),
        (Kind::String, Value::String(text)) if is_id => Some(Field::String(text.trim().to_owned())),
        (Kind::String, Value::Number(number)) if is_id && !number.is_f64() => Some(Field::String(number.to_string())),
        (Kind::String, Value::String(text)) => Some(Field::String(text.clone())),
        (Kind::Bool, Value::Bool(flag)) => Some(Field::Bool(*flag)),
        (Kind::Bool, Value::Number(_) | Value::String(_)) => {
            let text = value.as_str().map_or_else(|| value.to_string(), |text| text.trim().to_ascii_lowercase());
            let words = [("true", true), ("1", true), ("false", false), ("0", false)];
            words.into_iter().find(|(word, _)| *word == text).map(|(_, flag)| Field::Bool(flag))
        }
        (Kind::Int32, _) => number().and_then(|number| number.try_into().ok()).map(Field::I32),
        (Kind::Int64, _) => number().and_then(|number| number.try_into().ok()).map(Field::I64),
        (Kind::Message(descriptor), value) => Some(Field::Message(message(&descriptor, value)?)),
        _ => None,
    };
    read.map(Some).ok_or_else(|| Malformed(field.full_name().to_owned()))
}
