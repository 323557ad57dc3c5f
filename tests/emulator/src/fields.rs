//! Parses the body of a save: exactly the vendor's keys, each with its type and length.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};

const NAME: usize = 63;
const CSR: usize = 5_120;
const ANY: usize = usize::MAX;
const CONSENT: &str = "agree_privacy_protection";

/// The string keys: name, whether the key is mandatory, and the maximum number of characters.
const STRINGS: [(&str, bool, usize); 14] = [
    ("domain", true, ANY),
    ("sans", false, ANY),
    ("csr", false, CSR),
    ("company_name", true, NAME),
    ("company_province", true, NAME),
    ("company_city", true, NAME),
    ("company_unit", false, NAME),
    ("country", true, ANY),
    ("applicant_name", true, NAME),
    ("applicant_phone", true, ANY),
    ("applicant_email", true, ANY),
    ("contact_name", false, NAME),
    ("contact_phone", false, ANY),
    ("contact_email", false, ANY),
];

/// A JSON object without duplicate keys.
struct Object(Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut object = Map::new();
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    if object.insert(key, value).is_some() {
                        return Err(A::Error::custom("duplicate key"));
                    }
                }
                Ok(Object(object))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// Parses the draft in the body of a save. The error never contains a value.
pub(crate) fn parse(body: &[u8]) -> Result<Map<String, Value>, String> {
    let Object(object) =
        serde_json::from_slice(body).map_err(|_| "the body is not a JSON object, or has a duplicate key".to_owned())?;
    if object.keys().any(|key| key != CONSENT && STRINGS.iter().all(|(name, ..)| key != name)) {
        return Err("the body has an unknown key".to_owned());
    }
    for (name, mandatory, max) in STRINGS {
        match object.get(name) {
            None if mandatory => return Err(format!("{name} is missing")),
            None => {}
            Some(Value::String(text)) if text.chars().count() <= max => {}
            Some(Value::String(_)) => return Err(format!("{name} is too long")),
            Some(_) => return Err(format!("{name} is not a string")),
        }
    }
    match object.get(CONSENT) {
        Some(Value::Bool(true)) => Ok(object),
        _ => Err(format!("{CONSENT} is not true")),
    }
}

/// Returns the response of a read of this draft.
pub(crate) fn read_back(draft: &Value) -> Value {
    let text = |key: &str| draft[key].as_str().unwrap_or_default();
    let or_null = |key: &str| Some(text(key)).filter(|text| !text.is_empty());
    serde_json::json!({
        "domain_name": text("domain"),
        "sans": text("sans"),
        "CSR": or_null("csr"),
        "country": text("country"),
        "company_name": text("company_name"),
        "company_unit": text("company_unit"),
        "company_province": text("company_province"),
        "company_city": text("company_city"),
        "applicant_name": text("applicant_name"),
        "applicant_phone": text("applicant_phone"),
        "applicant_email": text("applicant_email"),
        "contact_name": or_null("contact_name"),
        "contact_phone": or_null("contact_phone"),
        "contact_email": or_null("contact_email"),
        "bl": "0",
        "tl": "0",
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn full() -> Value {
        json!({
            "domain": "www.xzz.com", "company_name": "", "company_province": "", "company_city": "",
            "country": "CN", "applicant_name": "Tom", "applicant_phone": "1", "applicant_email": "a@b.c",
            "agree_privacy_protection": true
        })
    }

    fn with(key: &str, value: Value) -> Result<Map<String, Value>, String> {
        let mut body = full();
        body[key] = value;
        parse(body.to_string().as_bytes())
    }

    #[test]
    fn mandatory_keys_suffice_and_are_required() {
        let body = full();
        let parsed = parse(body.to_string().as_bytes()).unwrap();
        assert_eq!(Value::Object(parsed), body);
        for key in body.as_object().unwrap().keys() {
            let mut incomplete = body.clone();
            incomplete.as_object_mut().unwrap().remove(key);
            let error = parse(incomplete.to_string().as_bytes()).unwrap_err();
            assert!(error.starts_with(key.as_str()), "{error}");
        }
    }

    #[test]
    fn types_and_lengths_are_checked() {
        for (name, ..) in STRINGS {
            assert!(with(name, json!("x")).is_ok(), "{name}");
            for value in [Value::Null, json!(1), json!(true), json!(["x"])] {
                assert_eq!(with(name, value).unwrap_err(), format!("{name} is not a string"));
            }
        }
        assert!(with("company_name", json!("华".repeat(63))).is_ok());
        assert!(with("company_name", json!("x".repeat(64))).is_err());
        assert!(with("csr", json!("x".repeat(5_120))).is_ok());
        assert!(with("csr", json!("x".repeat(5_121))).is_err());
        assert!(with("agree_privacy_protection", json!(false)).is_err());
        assert!(with("agree_privacy_protection", json!("true")).is_err());
        assert!(with("Domain", json!("x")).is_err());
    }

    #[test]
    fn a_duplicate_key_is_rejected() {
        let body = full().to_string();
        let duplicate = body.replacen('{', r#"{"domain":"a","#, 1);
        assert!(parse(duplicate.as_bytes()).unwrap_err().contains("duplicate"));
        for body in ["", "[]", "null", "{} x"] {
            assert!(parse(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn a_read_has_null_for_unset_values() {
        let read = read_back(&full());
        assert_eq!(read["domain_name"], "www.xzz.com");
        assert_eq!(read["CSR"], Value::Null);
        assert_eq!(read["contact_email"], Value::Null);
        assert_eq!(read["bl"], "0");
        assert_eq!(read.as_object().unwrap().len(), 16);
    }
}
