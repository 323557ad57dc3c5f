//! Requests and replies as JSON, by protobuf's mapping.

mod unique;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions, Value};
use serde_json::{Map, Serializer, Value as Json};

use super::{methods::similar, printable::printable_json};

/// Reads a request. An error names the field and never a value.
pub(super) fn request(descriptor: &MessageDescriptor, text: &str) -> Result<DynamicMessage, String> {
    if text.trim().is_empty() {
        return Err("is empty; {} is the empty request".to_owned());
    }
    let json: Json = serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))?;
    unique::check(descriptor, text).map_err(|error| error.to_string())?;
    DynamicMessage::deserialize(descriptor.clone(), &json).map_err(|_| problem(descriptor, &json, String::new()))
}

/// Returns the first field that does not fit the message, and why.
fn problem(message: &MessageDescriptor, json: &Json, path: String) -> String {
    let Some(object) = json.as_object() else { return format!("{}expects an object", prefix(&path)) };
    for (key, value) in object {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let Some(field) = field(message, key) else { return format!("{path}: {}", unknown(message, key)) };
        if !is_valid(message, key, value) {
            return field_problem(message, &field, key, value, path);
        }
    }
    format!("{}does not fit the message", prefix(&path))
}

fn field_problem(
    message: &MessageDescriptor,
    field: &FieldDescriptor,
    key: &str,
    value: &Json,
    path: String,
) -> String {
    if field.is_list() {
        let Some(items) = value.as_array() else { return format!("{path}: expects a list") };
        let invalid = items.iter().position(|item| !is_valid(message, key, &Json::from(vec![item.clone()])));
        return match invalid {
            Some(index) => value_problem(field, &items[index], format!("{path}[{index}]")),
            None => format!("{path}: expects a list"),
        };
    }
    value_problem(field, value, path)
}

fn value_problem(field: &FieldDescriptor, value: &Json, path: String) -> String {
    match field.kind() {
        Kind::Message(message) => problem(&message, value, path),
        kind => format!("{path}: expects {}", expected(&kind)),
    }
}

/// Returns whether a message can have this field alone.
fn is_valid(message: &MessageDescriptor, key: &str, value: &Json) -> bool {
    let alone = Json::Object(Map::from_iter([(key.to_owned(), value.clone())]));
    DynamicMessage::deserialize(message.clone(), &alone).is_ok()
}

/// Returns the field that a key names, by the name of JSON or of the proto.
fn field(message: &MessageDescriptor, key: &str) -> Option<FieldDescriptor> {
    message.get_field_by_json_name(key).or_else(|| message.get_field_by_name(key))
}

fn prefix(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("{path}: ") }
}

fn unknown(message: &MessageDescriptor, key: &str) -> String {
    let fields: Vec<_> = message.fields().collect();
    let names = || fields.iter().map(FieldDescriptor::name);
    let similar = similar(key, names());
    if similar.is_empty() {
        format!("unknown field; {} has {}", message.name(), names().collect::<Vec<_>>().join(", "))
    } else {
        format!("unknown field; similar ones are {}", similar.join(", "))
    }
}

fn expected(kind: &Kind) -> String {
    match kind {
        Kind::String => "text in quotes".to_owned(),
        Kind::Bool => "true or false".to_owned(),
        Kind::Bytes => "Base64 in quotes".to_owned(),
        other => format!("a number of type {other:?}").to_lowercase(),
    }
}

/// Returns a reply as JSON.
pub(super) fn reply(message: &DynamicMessage) -> String {
    pretty(message, &SerializeOptions::new())
}

/// Returns an empty request as JSON, with all its fields.
pub(super) fn template(descriptor: &MessageDescriptor) -> String {
    pretty(&filled(descriptor), &SerializeOptions::new().skip_default_fields(false).use_proto_field_name(true))
}

/// Returns a message with all its messages, and with the defaults of its optional fields.
fn filled(descriptor: &MessageDescriptor) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        match field.kind() {
            Kind::Message(inner) if field.is_list() => {
                message.set_field(&field, Value::List(vec![Value::Message(filled(&inner))]));
            }
            Kind::Message(inner) => message.set_field(&field, Value::Message(filled(&inner))),
            _ if field.is_list() => {}
            _ => message.set_field(&field, field.default_value()),
        }
    }
    message
}

fn pretty(message: &DynamicMessage, options: &SerializeOptions) -> String {
    let mut json = Vec::new();
    message.serialize_with_options(&mut Serializer::pretty(&mut json), options).expect("memory can be written");
    printable_json(str::from_utf8(&json).expect("JSON is UTF-8"))
}
