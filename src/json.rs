//! Writes JSON text into memory.
//!
//! The body and the audit line of a call have fifty short names and values, few of which need an escape. serde_json writes
//! those that do, and the numbers: for the others it takes twice as many instructions.

use std::io::Write;

use serde::Serialize;

use crate::scan;

/// A value with a JSON form.
pub(crate) trait WriteJson {
    /// Writes the JSON of the value.
    fn write_json(&self, json: &mut impl Write);
}

impl WriteJson for str {
    fn write_json(&self, json: &mut impl Write) {
        if needs_escape(self) {
            return serde(json, self);
        }
        put(json, b"\"");
        put(json, self.as_bytes());
        put(json, b"\"");
    }
}

impl WriteJson for String {
    fn write_json(&self, json: &mut impl Write) {
        self.as_str().write_json(json);
    }
}

macro_rules! by_serde {
    ($($value:ty),*) => {
        $(impl WriteJson for $value {
            fn write_json(&self, json: &mut impl Write) {
                serde(json, self);
            }
        })*
    };
}

by_serde!(bool, i32, i64, u64, f64);

impl<T: WriteJson> WriteJson for Vec<T> {
    fn write_json(&self, json: &mut impl Write) {
        put(json, b"[");
        for (index, entry) in self.iter().enumerate() {
            if index > 0 {
                put(json, b",");
            }
            entry.write_json(json);
        }
        put(json, b"]");
    }
}

/// An object whose members are written one after the other.
pub(crate) struct Object<'a, W> {
    json: &'a mut W,
    is_empty: bool,
}

impl<'a, W: Write> Object<'a, W> {
    /// Begins an object.
    pub(crate) fn new(json: &'a mut W) -> Self {
        put(json, b"{");
        Self { json, is_empty: true }
    }

    /// Writes a member. Its name stands in the source, and needs no escape.
    pub(crate) fn member(&mut self, name: &'static str, value: &(impl WriteJson + ?Sized)) {
        debug_assert!(!needs_escape(name), "{name}");
        put(self.json, if std::mem::take(&mut self.is_empty) { b"\"" } else { b",\"" });
        put(self.json, name.as_bytes());
        put(self.json, b"\":");
        value.write_json(self.json);
    }

    /// Ends the object.
    pub(crate) fn end(self) {
        put(self.json, b"}");
    }
}

fn needs_escape(text: &str) -> bool {
    scan::any(text, |word| word.has_less(0x20) | word.has(b'"') | word.has(b'\\'))
}

fn serde(json: &mut impl Write, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(json, value)
        .expect("texts and numbers have a JSON form, and writing to memory does not fail");
}

fn put(json: &mut impl Write, bytes: &[u8]) {
    json.write_all(bytes).expect("writing to memory does not fail");
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use serde_json::json;

    use super::{Object, WriteJson};

    fn text(value: &impl WriteJson) -> String {
        let mut json = Vec::new();
        value.write_json(&mut json);
        String::from_utf8(json).unwrap()
    }

    #[test]
    fn every_ascii_character_is_written_as_serde_json_does() {
        for byte in 0..0x80_u8 {
            let value = format!("a{}z", char::from(byte));
            assert_eq!(text(&value), serde_json::to_string(&value).unwrap());
        }
    }

    #[test]
    fn objects_have_their_members_in_order() {
        let mut json = Vec::new();
        let mut object = Object::new(&mut json);
        object.member("b", &vec!["x".to_owned(), "y\n".to_owned()]);
        object.member("a", &-1_i64);
        object.member("nan", &f64::NAN);
        object.member("none", &Vec::<bool>::new());
        object.end();
        assert_eq!(json, br#"{"b":["x","y\n"],"a":-1,"nan":null,"none":[]}"#);
        Object::new(&mut json).end();
        assert!(json.ends_with(b"}{}"));
    }

    proptest! {
        #[test]
        fn texts_are_written_as_serde_json_does(texts in vec(any::<String>(), 0..4)) {
            prop_assert_eq!(text(&texts), json!(texts).to_string());
        }
    }
}
