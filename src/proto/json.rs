//! The JSON of messages, which `build.rs` generates with the help of this module.
//!
//! Requests are written as the annotations say. Responses are read tolerantly: SCM omits keys, returns null, puts blanks
//! around keys and ids, writes numbers as text, and one object instead of a list.

use std::{borrow::Cow, fmt, io::Write};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor},
};

use crate::json::WriteJson;

mod messages;
mod readers;

pub use readers::{Flag, Id, Number, Object, Reader, Text, acknowledgement, split};

/// A list that is written as one string. The second field joins the entries.
pub struct Joined<'a>(pub &'a [String], pub &'static str);

impl WriteJson for Joined<'_> {
    fn write_json(&self, json: &mut impl Write) {
        match self.0 {
            [] => "".write_json(json),
            [one] => one.write_json(json),
            entries => entries.join(self.1).write_json(json),
        }
    }
}

/// What a message is in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An object.
    Object,
    /// An array of objects. One object is an array of one, and null is an empty array.
    Objects,
    /// An array of other values. Null is an empty array.
    Values,
}

/// A message that is read from JSON.
pub trait ReadJson: Default {
    /// What the message is in JSON.
    const FORM: Form = Form::Object;

    /// Returns the message of an object without keys.
    fn empty() -> Self {
        Self::default()
    }

    /// Reads the value of a key, if the message has the key. The last value of a key counts.
    fn read<'de, A: MapAccess<'de>>(&mut self, _key: &str, _map: &mut A) -> Result<bool, A::Error> {
        Ok(false)
    }

    /// Reads an array, if the message is one in JSON. The message is empty before.
    fn read_array<'de, A: SeqAccess<'de>>(&mut self, _array: A) -> Result<(), A::Error> {
        Err(A::Error::invalid_type(Unexpected::Seq, &"an object"))
    }

    /// Returns whether the vendor's acknowledgements are there.
    fn is_acknowledged(&self) -> bool {
        true
    }

    /// Sets the fields that no JSON contains.
    fn finish(&mut self) {}
}

/// A key without blanks around it.
struct Key<'de>(Cow<'de, str>);

impl Key<'_> {
    /// Returns the key.
    fn name(&self) -> &str {
        trim(&self.0)
    }
}

/// Removes whitespace at both ends. Most texts have none, which their first and their last byte show.
fn trim(text: &str) -> &str {
    let is_graphic = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_graphic);
    let bytes = text.as_bytes();
    if is_graphic(bytes.first()) && is_graphic(bytes.last()) { text } else { text.trim() }
}

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// Reads a message from an object. Unknown keys are ignored.
pub fn object<'de, M: ReadJson, A: MapAccess<'de>>(mut map: A) -> Result<M, A::Error> {
    let mut message = M::empty();
    while let Some(key) = map.next_key::<Key<'_>>()? {
        if !message.read(key.name(), &mut map)? {
            map.next_value::<IgnoredAny>()?;
        }
    }
    message.finish();
    Ok(message)
}
