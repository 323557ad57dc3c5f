//! The response of ReadInfo, whose JSON differs from the proto: a flat object with other keys.

use serde::de::MapAccess;

use crate::proto::{
    CertificateInfo, ReadInfoResponse,
    json::{self, Flag, ReadJson, Reader as _, Text},
};

impl ReadJson for ReadInfoResponse {
    fn empty() -> Self {
        Self { info: Some(CertificateInfo::default()), ..Self::default() }
    }

    fn read<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
        let info = self.info.get_or_insert_default();
        match key {
            "domain_name" => info.domain = text(map)?,
            "sans" => info.sans = json::split(map)?,
            "CSR" => info.csr = text(map)?,
            "country" => info.country = text(map)?,
            "company_name" => info.company_name = text(map)?,
            "company_unit" => info.company_unit = Text::value(map)?,
            "company_province" => info.company_province = text(map)?,
            "company_city" => info.company_city = text(map)?,
            "applicant_name" => info.applicant_name = text(map)?,
            "applicant_phone" => info.applicant_phone = text(map)?,
            "applicant_email" => info.applicant_email = text(map)?,
            "contact_name" => info.contact_name = Text::value(map)?,
            "contact_phone" => info.contact_phone = Text::value(map)?,
            "contact_email" => info.contact_email = Text::value(map)?,
            "bl" => self.bank_licence_uploaded = Flag::value(map)?.unwrap_or_default(),
            "tl" => self.business_licence_uploaded = Flag::value(map)?.unwrap_or_default(),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn text<'de, A: MapAccess<'de>>(map: &mut A) -> Result<String, A::Error> {
    Ok(Text::value(map)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use crate::proto::{
        ReadInfoResponse,
        json::{Object, Reader as _},
    };

    fn read(json: &str) -> Option<ReadInfoResponse> {
        serde_json::from_str::<Object<ReadInfoResponse>>(json).ok().map(Object::into_value)
    }

    #[test]
    fn nulls_and_missing_keys_are_unset_fields() {
        let json = r#"{"domain_name":"www.xzz.com","sans":"xzz.com;m.xzz.com","CSR":null,"contact_name":null,"bl":"1","tl":"0"}"#;
        let reply = read(json).unwrap();
        let info = reply.info.unwrap();
        assert_eq!((info.domain.as_str(), info.csr.as_str(), info.contact_name), ("www.xzz.com", "", None));
        assert_eq!(info.sans, ["xzz.com", "m.xzz.com"]);
        assert!(reply.bank_licence_uploaded && !reply.business_licence_uploaded);
    }

    #[test]
    fn invalid_flags_are_rejected() {
        for invalid in [r#"{"bl":"2"}"#, r#"{"tl":2}"#, r#"{"tl":"yes"}"#, r#"{"bl":{}}"#] {
            assert!(read(invalid).is_none(), "{invalid}");
        }
        assert!(read(r#"{"tl":1}"#).unwrap().business_licence_uploaded);
    }
}
