//! How the vendor's JSON differs from the proto's: helpers that `build.rs` puts on fields.

use serde::{Deserialize, Deserializer};

/// Reads `null` as unset.
pub fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A list as one string, its entries joined by `;`.
pub mod joined {
    use serde::{Deserializer, Serializer};

    /// Joins the list.
    pub fn serialize<S: Serializer>(list: &[String], serializer: S) -> Result<S::Ok, S::Error> {
        match list {
            [] => serializer.serialize_str(""),
            [one] => serializer.serialize_str(one),
            many => serializer.serialize_str(&many.join(";")),
        }
    }

    /// Splits the string.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
        super::nullable::<_, String>(deserializer).map(|text| split(&text))
    }

    /// The entries of a joined list; an empty entry is none.
    pub fn split(text: &str) -> Vec<String> {
        text.split(';').map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::proto::CertificateInfo;

    #[test]
    fn a_list_of_any_length_is_one_string() {
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
    fn only_unset_optional_fields_are_left_out() {
        let body = serde_json::to_string(&CertificateInfo::default()).unwrap();
        assert_eq!(
            body,
            r#"{"domain":"","sans":"","csr":"","company_name":"","company_province":"","company_city":"","country":"","applicant_name":"","applicant_phone":"","applicant_email":"","agree_privacy_protection":false}"#
        );
    }

    #[test]
    fn null_is_unset_and_a_key_given_twice_is_an_error() {
        let info: CertificateInfo =
            serde_json::from_str(r#"{"domain":null,"sans":null,"contact_name":null,"new":1}"#).unwrap();
        assert_eq!(info, CertificateInfo::default());
        assert!(serde_json::from_str::<CertificateInfo>(r#"{"domain":"a","domain":"b"}"#).is_err());
    }
}
