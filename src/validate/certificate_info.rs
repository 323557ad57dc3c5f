//! The rules of `CertificateInfo`, as documented in the proto.

use std::{borrow::Cow, collections::HashSet};

use super::{Check, Violations, country, csr, domain, text};
use crate::proto::CertificateInfo;

/// The largest number of invalid entries of `sans` that are named. A status is sent in headers, which some clients
/// limit to 8 KiB.
const MAX_NAMED: usize = 16;

impl Check for CertificateInfo {
    fn check(&mut self, at: &str, found: &mut Violations) {
        // A new field does not compile until it is listed here. Add its rule below.
        let Self {
            domain: _,
            sans: _,
            csr: _,
            company_name: _,
            company_unit: _,
            country: _,
            company_province: _,
            company_city: _,
            applicant_name: _,
            applicant_phone: _,
            applicant_email: _,
            contact_name: _,
            contact_phone: _,
            contact_email: _,
            agree_privacy_protection: _,
        } = self;
        let domain = found.report(at, "domain", domain::to_ascii(&self.domain));
        sans(&mut self.sans, domain.as_deref(), at, found);
        if !self.csr.is_empty() {
            found.report(at, "csr", csr::check(&self.csr, domain.as_deref()));
        }
        if let Some(Cow::Owned(domain)) = domain {
            self.domain = domain;
        }
        match country::to_upper(&self.country) {
            Some(country) => country.clone_into(&mut self.country),
            None => found.add(at, "country", "must be an ISO 3166-1 alpha-2 country code, such as CN"),
        }
        for (name, value, min, max) in [
            ("company_name", &self.company_name, 0, 63),
            ("company_unit", self.company_unit.as_ref().unwrap_or(&String::new()), 0, 63),
            ("company_province", &self.company_province, 0, 63),
            ("company_city", &self.company_city, 0, 63),
            ("applicant_name", &self.applicant_name, 1, 63),
            ("applicant_phone", &self.applicant_phone, 1, 255),
            ("applicant_email", &self.applicant_email, 1, 255),
            ("contact_name", self.contact_name.as_ref().unwrap_or(&String::new()), 0, 63),
            ("contact_phone", self.contact_phone.as_ref().unwrap_or(&String::new()), 0, 255),
            ("contact_email", self.contact_email.as_ref().unwrap_or(&String::new()), 0, 255),
        ] {
            found.report(at, name, text::check(value, min, max));
        }
        if !self.agree_privacy_protection {
            found.add(
                at,
                "agree_privacy_protection",
                "must be true: SCM saves nothing without the applicant's consent",
            );
        }
    }
}

/// Checks every name like `domain`, and rejects duplicates and the domain itself, compared in their normalized form.
fn sans(sans: &mut [String], domain: Option<&str>, at: &str, found: &mut Violations) {
    if sans.is_empty() {
        return;
    }
    let mut seen: HashSet<String> = domain.map(str::to_ascii_lowercase).into_iter().collect();
    let mut invalid = 0;
    for (index, name) in sans.iter_mut().enumerate() {
        let rule = match domain::to_ascii(name) {
            Ok(ascii) => {
                let is_new = seen.insert(ascii.to_ascii_lowercase());
                if let Cow::Owned(ascii) = ascii {
                    *name = ascii;
                }
                if is_new { continue } else { "must not be the same as another entry or as domain" }
            }
            Err(rule) => rule,
        };
        invalid += 1;
        if invalid <= MAX_NAMED {
            found.add(at, &format!("sans[{index}]"), rule);
        }
    }
    if invalid > MAX_NAMED {
        found.add(at, "sans", "has more than 16 invalid entries, of which the first 16 are listed");
    }
}
