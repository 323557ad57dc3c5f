//! Wire formats of the vendor's responses whose keys differ from the proto.

use serde::Deserialize;

use crate::proto::json::{joined, nullable};
use crate::proto::{CertificateInfo, ReadInfoResponse};

/// The response to reading saved information: a flat object with `domain_name`, `CSR` and two license flags.
#[derive(Deserialize)]
pub struct ReadInfoWire {
    #[serde(default, deserialize_with = "nullable")]
    domain_name: String,
    #[serde(default, with = "joined")]
    sans: Vec<String>,
    #[serde(default, rename = "CSR", deserialize_with = "nullable")]
    csr: String,
    #[serde(default, deserialize_with = "nullable")]
    country: String,
    #[serde(default, deserialize_with = "nullable")]
    company_name: String,
    company_unit: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    company_province: String,
    #[serde(default, deserialize_with = "nullable")]
    company_city: String,
    #[serde(default, deserialize_with = "nullable")]
    applicant_name: String,
    #[serde(default, deserialize_with = "nullable")]
    applicant_phone: String,
    #[serde(default, deserialize_with = "nullable")]
    applicant_email: String,
    contact_name: Option<String>,
    contact_phone: Option<String>,
    contact_email: Option<String>,
    bl: Option<Flag>,
    tl: Option<Flag>,
}

/// A boolean as "0" or "1".
#[derive(Deserialize, PartialEq)]
enum Flag {
    #[serde(rename = "0")]
    No,
    #[serde(rename = "1")]
    Yes,
}

impl From<ReadInfoWire> for ReadInfoResponse {
    fn from(saved: ReadInfoWire) -> Self {
        Self {
            info: Some(CertificateInfo {
                domain: saved.domain_name,
                sans: saved.sans,
                csr: saved.csr,
                company_name: saved.company_name,
                company_unit: saved.company_unit,
                company_province: saved.company_province,
                company_city: saved.company_city,
                country: saved.country,
                applicant_name: saved.applicant_name,
                applicant_phone: saved.applicant_phone,
                applicant_email: saved.applicant_email,
                contact_name: saved.contact_name,
                contact_phone: saved.contact_phone,
                contact_email: saved.contact_email,
                agree_privacy_protection: false, // missing in the response
            }),
            bank_licence_uploaded: saved.bl == Some(Flag::Yes),
            business_licence_uploaded: saved.tl == Some(Flag::Yes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ReadInfoWire;
    use crate::proto::ReadInfoResponse;

    #[test]
    fn nulls_and_missing_keys_are_unset_fields() {
        let json = r#"{"domain_name":"www.xzz.com","sans":"xzz.com;m.xzz.com","CSR":null,"contact_name":null,"bl":"1","tl":"0"}"#;
        let reply = ReadInfoResponse::from(serde_json::from_str::<ReadInfoWire>(json).unwrap());
        let info = reply.info.unwrap();
        assert_eq!((info.domain.as_str(), info.csr.as_str(), info.contact_name), ("www.xzz.com", "", None));
        assert_eq!(info.sans, ["xzz.com", "m.xzz.com"]);
        assert!(reply.bank_licence_uploaded && !reply.business_licence_uploaded);
    }

    #[test]
    fn invalid_flags_are_rejected() {
        assert!(serde_json::from_str::<ReadInfoWire>(r#"{"bl":"2"}"#).is_err());
        assert!(serde_json::from_str::<ReadInfoWire>(r#"{"tl":1}"#).is_err());
    }
}
