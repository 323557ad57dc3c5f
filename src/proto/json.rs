//! Serde helpers for fields whose JSON at the vendor differs from the proto. `build.rs` adds them to the generated
//! messages.

use serde::{Deserialize, Deserializer};

/// Deserializes `null` as the default value.
pub fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A list as one string, with entries joined by `;`.
pub mod joined {
    use serde::{Deserializer, Serializer};

    /// Serializes the list as a string.
    pub fn serialize<S: Serializer>(list: &[String], serializer: S) -> Result<S::Ok, S::Error> {
        match list {
            [] => serializer.serialize_str(""),
            [one] => serializer.serialize_str(one),
            entries => serializer.serialize_str(&entries.join(";")),
        }
    }

    /// Deserializes the string as a list.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
        super::nullable::<_, String>(deserializer).map(|text| split(&text))
    }

    /// Returns the entries of a joined list. Empty entries are ignored.
    pub fn split(text: &str) -> Vec<String> {
        text.split(';').map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::proto::CertificateInfo;

    #[test]
    fn lists_of_any_length_are_one_string() {
        for (sans, json) in
            [(vec![], r#""sans":"""#), (vec!["a.b"], r#""sans":"a.b""#), (vec!["a.b", "c.d"], r#""sans":"a.b;c.d""#)]
        {
            let sans: Vec<String> = sans.into_iter().map(str::to_owned).collect();
            let info = CertificateInfo { sans: sans.clone(), ..CertificateInfo::default() };
            let body = serde_json::to_string(&info).unwrap();
            assert!(body.contains(json), "{body}");
            assert_eq!(serde_json::from_str::<CertificateInfo>(&body).unwrap().sans, sans);
        }
    }

    #[test]
    fn only_unset_optional_fields_are_omitted() {
        let body = serde_json::to_string(&CertificateInfo::default()).unwrap();
        assert_eq!(
            body,
            r#"{"domain":"","sans":"","csr":"","company_name":"","company_province":"","company_city":"","country":"","applicant_name":"","applicant_phone":"","applicant_email":"","agree_privacy_protection":false}"#
        );
    }

    #[test]
    fn null_is_unset_and_duplicate_keys_are_errors() {
        let info: CertificateInfo =
            serde_json::from_str(r#"{"domain":null,"sans":null,"contact_name":null,"new":1}"#).unwrap();
        assert_eq!(info, CertificateInfo::default());
        assert!(serde_json::from_str::<CertificateInfo>(r#"{"domain":"a","domain":"b"}"#).is_err());
    }
}
