//! Parses JSON and rejects an object that has a key twice. `serde_json` alone uses the last value.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Parses a JSON text. The error never contains a value.
pub(crate) fn parse(text: &[u8]) -> Result<Value, String> {
    let parsed: Result<Unique, _> = serde_json::from_slice(text);
    parsed.map(|Unique(value)| value).map_err(|error| {
        let text = error.to_string();
        // Of serde_json's own texts, some show a part of the input.
        if error.is_data() && text.starts_with(DUPLICATE) {
            text.split(" at line ").next().unwrap_or(DUPLICATE).to_owned()
        } else {
            "the body is not JSON".to_owned()
        }
    })
}

const DUPLICATE: &str = "duplicate key";

/// A value without duplicate keys at any depth.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue).map(Unique)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Unique(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((key, Unique(value))) = map.next_entry::<String, Unique>()? {
            if object.insert(key.clone(), value).is_some() {
                return Err(A::Error::custom(format_args!("{DUPLICATE} {key}")));
            }
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::parse;

    #[test]
    fn duplicate_keys_are_rejected_at_any_depth() {
        let text = br#"{"a": [{"b": null, "c": -1}, true, 1.5, "x"], "d": {}}"#;
        assert_eq!(parse(text), Ok(json!({"a": [{"b": null, "c": -1}, true, 1.5, "x"], "d": {}})));
        for text in [r#"{"k": 1, "k": 1}"#, r#"[{"a": {"k": "secret", "b": 1, "k": "secret"}}]"#] {
            assert_eq!(parse(text.as_bytes()), Err("duplicate key k".to_owned()), "{text}");
        }
        for text in ["", "{", "{} x", "secret", r#""secret"#, r#"{"secret" 1}"#] {
            assert_eq!(parse(text.as_bytes()), Err("the body is not JSON".to_owned()), "{text}");
        }
    }
}
