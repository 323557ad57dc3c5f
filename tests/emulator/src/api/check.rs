//! Checks a request against its operation: unknown keys, types, missing fields, lengths, ranges and values.

use serde_json::{Map, Value};

use super::json;
use super::operations::{BodyKind, Field, Kind, Operation};
use crate::http::{Request, percent_decode};

/// The checked fields of a request: path, query and body side by side. The elements of a body that is an array are
/// `items`.
pub(crate) struct Input(pub(crate) Map<String, Value>);

impl Input {
    /// Returns a string, or an empty one if it is not set.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.0.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        self.0.get(key)?.as_bool()
    }

    pub(crate) fn number(&self, key: &str) -> Option<i64> {
        self.0.get(key)?.as_i64()
    }

    /// Returns the elements of a list, or none if it is not set.
    pub(crate) fn list(&self, key: &str) -> &[Value] {
        self.0.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// Returns a list of strings.
    pub(crate) fn texts(&self, key: &str) -> Vec<&str> {
        self.list(key).iter().filter_map(Value::as_str).collect()
    }
}

/// Checks the path variables, the query and the body. An error names the first key that is wrong, and no value.
pub(crate) fn check(operation: &Operation, variables: &[(&str, &str)], request: &Request) -> Result<Input, String> {
    let mut input = Map::new();
    for (name, sent) in variables {
        input.insert((*name).to_owned(), Value::String(decoded(name, sent)?));
    }
    check_object("", &operation.path_params, &input)?;
    let query = query(&operation.query, request.query())?;
    check_object("", &operation.query, &query)?;
    input.extend(query);
    input.extend(body(operation, request)?);
    Ok(Input(input))
}

fn decoded(name: &str, sent: &str) -> Result<String, String> {
    String::from_utf8(percent_decode(sent)).map_err(|_| format!("{name} is not UTF-8"))
}

/// Parses the query. Parameters have the types of their fields.
fn query(fields: &[Field], query: &str) -> Result<Map<String, Value>, String> {
    let mut parsed = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, sent) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decoded("a query parameter's name", name)?;
        let text = decoded(&name, sent)?;
        let kind = fields.iter().find(|field| field.name == name).map(|field| field.kind);
        let value = match kind {
            Some(Kind::Integer) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse::<i32>().map(Value::from).unwrap_or(Value::String(text))
            }
            Some(Kind::Boolean) if text == "true" || text == "false" => Value::Bool(text == "true"),
            _ => Value::String(text),
        };
        if parsed.insert(name.clone(), value).is_some() {
            return Err(format!("duplicate query parameter {name}"));
        }
    }
    Ok(parsed)
}

fn body(operation: &Operation, request: &Request) -> Result<Map<String, Value>, String> {
    if operation.body_kind == BodyKind::None {
        return if request.body.is_empty() { Ok(Map::new()) } else { Err("the request has no body".to_owned()) };
    }
    if !request.is_json() {
        return Err("the content type is not application/json".to_owned());
    }
    let array = operation.body_kind == BodyKind::Array;
    match (array, json::parse(&request.body)?) {
        (false, Value::Object(body)) => {
            check_object("", &operation.body, &body)?;
            Ok(body)
        }
        (true, Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                check_element(&format!("[{index}]"), Kind::Object, &operation.body, item)?;
            }
            Ok(Map::from_iter([("items".to_owned(), Value::Array(items))]))
        }
        (true, _) => Err("the body is not an array".to_owned()),
        (false, _) => Err("the body is not an object".to_owned()),
    }
}

/// Checks the keys and values of an object. `prefix` is the path to its keys.
fn check_object(prefix: &str, fields: &[Field], object: &Map<String, Value>) -> Result<(), String> {
    if let Some(key) = object.keys().find(|key| fields.iter().all(|field| field.name != **key)) {
        return Err(format!("{prefix}{key} is unknown"));
    }
    for field in fields {
        let key = format!("{prefix}{}", field.name);
        match object.get(&field.name) {
            Some(value) => check_value(&key, field, value)?,
            None if field.required => return Err(format!("{key} is missing")),
            None => {}
        }
    }
    Ok(())
}

fn check_value(key: &str, field: &Field, value: &Value) -> Result<(), String> {
    check_element(key, field.kind, &field.nested, value)?;
    check_length(key, value, field.min_length, field.max_length)?;
    let number = value.as_i64();
    // The vendor's `int8` has values over 127, so that all integers have the range of `int32`.
    if number.is_some_and(|number| {
        i32::try_from(number).is_err()
            || field.minimum.is_some_and(|minimum| number < minimum)
            || field.maximum.is_some_and(|maximum| number > maximum)
    }) {
        return Err(format!("{key} is out of range"));
    }
    check_enum(key, value, field.values.as_deref())?;
    if field.constant.as_ref().is_some_and(|constant| constant != value) {
        return Err(format!("{key} is not the only value that is possible"));
    }
    let Some(items) = value.as_array() else {
        return Ok(());
    };
    if field.min_items.is_some_and(|minimum| items.len() < minimum) {
        return Err(format!("{key} has too few elements"));
    }
    if field.max_items.is_some_and(|maximum| items.len() > maximum) {
        return Err(format!("{key} has too many elements"));
    }
    for (index, item) in items.iter().enumerate() {
        let key = format!("{key}[{index}]");
        check_element(&key, field.items.unwrap_or(Kind::Object), &field.nested, item)?;
        check_length(&key, item, field.item_min_length, field.item_max_length)?;
        check_enum(&key, item, field.item_enum.as_deref())?;
    }
    Ok(())
}

/// Checks the type of a value, and the fields of an object.
fn check_element(key: &str, kind: Kind, nested: &[Field], value: &Value) -> Result<(), String> {
    match (kind, value) {
        (Kind::Object, Value::Object(object)) => check_object(&format!("{key}."), nested, object),
        (Kind::String, Value::String(_)) | (Kind::Boolean, Value::Bool(_)) | (Kind::Array, Value::Array(_)) => Ok(()),
        (Kind::Integer, Value::Number(number)) if number.is_i64() => Ok(()),
        (Kind::Object, _) => Err(format!("{key} is not an object")),
        (Kind::String, _) => Err(format!("{key} is not a string")),
        (Kind::Boolean, _) => Err(format!("{key} is not a boolean")),
        (Kind::Array, _) => Err(format!("{key} is not an array")),
        (Kind::Integer, _) => Err(format!("{key} is not an integer")),
    }
}

fn check_length(key: &str, value: &Value, minimum: Option<usize>, maximum: Option<usize>) -> Result<(), String> {
    let Some(text) = value.as_str() else {
        return Ok(());
    };
    let length = text.chars().count();
    if minimum.is_some_and(|minimum| length < minimum) {
        return Err(format!("{key} is too short"));
    }
    if maximum.is_some_and(|maximum| length > maximum) {
        return Err(format!("{key} is too long"));
    }
    Ok(())
}

fn check_enum(key: &str, value: &Value, values: Option<&[Value]>) -> Result<(), String> {
    match values {
        Some(values) if !values.contains(value) => Err(format!("{key} is none of the values that are possible")),
        _ => Ok(()),
    }
}
