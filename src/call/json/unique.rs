//! Rejects requests that have a field twice. Parsers of JSON keep one of the values, without an error.

use std::{collections::HashSet, fmt};

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::field;

/// Checks JSON that is a valid request. The error names the field.
pub(super) fn check(message: &MessageDescriptor, text: &str) -> Result<(), serde_json::Error> {
    let unique = Unique { message: Some(message.clone()), path: String::new() };
    unique.deserialize(&mut serde_json::Deserializer::from_str(text))
}

/// A value in which no object has a field twice.
struct Unique {
    /// The type of the objects. Without one, their keys are compared.
    message: Option<MessageDescriptor>,
    path: String,
}

impl<'de> DeserializeSeed<'de> for Unique {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let path = if self.path.is_empty() { key.clone() } else { format!("{}.{key}", self.path) };
            let field = self.message.as_ref().and_then(|message| field(message, &key));
            if !seen.insert(field.as_ref().map_or(key, |field| field.name().to_owned())) {
                return Err(A::Error::custom(format!("{path}: the field is given twice")));
            }
            map.next_value_seed(Self { message: field.as_ref().and_then(message_of), path })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        let item = |index| Self { message: self.message.clone(), path: format!("{}[{index}]", self.path) };
        let mut index = 0;
        while sequence.next_element_seed(item(index))?.is_some() {
            index += 1;
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

fn message_of(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(message) if !field.is_map() => Some(message),
        _ => None,
    }
}
