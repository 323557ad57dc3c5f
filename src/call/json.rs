//! Requests and replies as JSON, by protobuf's mapping.

mod unique;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde::{Serialize, ser::SerializeMap as _};
use serde_json::{Map, Value as Json};

use super::{methods::similar, printable::printable_json};

/// The annotations of a field.
const FIELD_OPTION: &str = "huaweicloud.scm.rest.v1.field";

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
    printable_json(&serde_json::to_string_pretty(message).expect("a message is JSON"))
}

/// Returns a request as JSON, with all its fields. It sets nothing but required messages: an optional field is null, because
/// an empty value of it would be sent.
pub(super) fn template(descriptor: &MessageDescriptor) -> String {
    serde_json::to_string_pretty(&Template(descriptor)).expect("text can be written")
}

/// A message whose required messages are filled in.
struct Template<'a>(&'a MessageDescriptor);

impl Serialize for Template<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for field in self.0.fields() {
            let name = field.name();
            match field.kind() {
                Kind::Message(item) if field.is_list() && is_required(&field) => {
                    map.serialize_entry(name, &[Template(&item)])
                }
                Kind::Message(message) if is_required(&field) => map.serialize_entry(name, &Template(&message)),
                _ if field.is_list() => map.serialize_entry(name, &[(); 0]),
                _ if field.supports_presence() => map.serialize_entry(name, &()),
                Kind::String | Kind::Bytes => map.serialize_entry(name, ""),
                Kind::Bool => map.serialize_entry(name, &false),
                _ => map.serialize_entry(name, &0),
            }?;
        }
        map.end()
    }
}

/// Returns whether the annotations require a field.
fn is_required(field: &FieldDescriptor) -> bool {
    let option = field.parent_pool().get_extension_by_name(FIELD_OPTION);
    let option = option.expect("the descriptors have the annotations");
    let options = field.options();
    let rules = options.get_extension(&option);
    rules.as_message().and_then(|rules| rules.get_field_by_name("required")?.as_bool()).unwrap_or_default()
}
