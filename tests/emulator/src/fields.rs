//! The content of a save: exactly the vendor's keys, each of its type and length.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};

const NAME: usize = 63;
const CSR: usize = 5_120;
const ANY: usize = usize::MAX;
const CONSENT: &str = "agree_privacy_protection";

/// The strings: name, whether it has to be there, and the most characters it may have.
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

/// A JSON object in which no key comes twice.
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
                        return Err(A::Error::custom("a key comes twice"));
                    }
                }
                Ok(Object(object))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// The draft in a save's body, or what is wrong with it (never a value of it).
pub(crate) fn parse(body: &[u8]) -> Result<Map<String, Value>, String> {
    let Object(object) =
        serde_json::from_slice(body).map_err(|_| "the body is no JSON object, or a key comes twice".to_owned())?;
    if object.keys().any(|key| key != CONSENT && STRINGS.iter().all(|(name, ..)| key != name)) {
        return Err("the body has an unknown key".to_owned());
    }
    for (name, mandatory, most) in STRINGS {
        match object.get(name) {
            None if mandatory => return Err(format!("{name} is missing")),
            None => {}
            Some(Value::String(text)) if text.chars().count() <= most => {}
            Some(Value::String(_)) => return Err(format!("{name} is too long")),
            Some(_) => return Err(format!("{name} is no string")),
        }
    }
    match object.get(CONSENT) {
        Some(Value::Bool(true)) => Ok(object),
        _ => Err(format!("{CONSENT} is not true")),
    }
}

/// What a read says of a draft.
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
    fn the_mandatory_keys_do() {
        let body = full();
        let parsed = parse(body.to_string().as_bytes()).unwrap();
        assert_eq!(Value::Object(parsed), body);
        for key in body.as_object().unwrap().keys() {
            let mut less = body.clone();
            less.as_object_mut().unwrap().remove(key);
            let wrong = parse(less.to_string().as_bytes()).unwrap_err();
            assert!(wrong.starts_with(key.as_str()), "{wrong}");
        }
    }

    #[test]
    fn types_and_lengths_are_the_documented_ones() {
        for (name, ..) in STRINGS {
            assert!(with(name, json!("x")).is_ok(), "{name}");
            for wrong in [Value::Null, json!(1), json!(true), json!(["x"])] {
                assert_eq!(with(name, wrong).unwrap_err(), format!("{name} is no string"));
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
    fn a_key_that_comes_twice_is_refused() {
        let body = full().to_string();
        let twice = body.replacen('{', r#"{"domain":"a","#, 1);
        assert!(parse(twice.as_bytes()).unwrap_err().contains("twice"));
        for body in ["", "[]", "null", "{} x"] {
            assert!(parse(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn a_read_has_null_for_what_is_unset() {
        let read = read_back(&full());
        assert_eq!(read["domain_name"], "www.xzz.com");
        assert_eq!(read["CSR"], Value::Null);
        assert_eq!(read["contact_email"], Value::Null);
        assert_eq!(read["bl"], "0");
        assert_eq!(read.as_object().unwrap().len(), 16);
    }
}
