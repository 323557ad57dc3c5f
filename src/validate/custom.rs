//! The rules that annotations cannot express: of domain names, signing requests and countries.
//!
//! The generated check of a message calls its function here first, and then checks the rules of the annotations. A field
//! that is reported here is not reported again.

use std::{borrow::Cow, collections::HashSet};

use super::{MAX_NAMED, MORE, Violations, country, csr, domain};
use crate::proto::CertificateInfo;

/// Checks the information of an application.
pub(super) fn certificate_info(info: &mut CertificateInfo, at: &str, found: &mut Violations) {
    let domain = found.report(at, "domain", domain::to_ascii(&info.domain));
    sans(&mut info.sans, domain.as_deref(), at, found);
    if !info.csr.is_empty() {
        found.report(at, "csr", csr::check(&info.csr, domain.as_deref()));
    }
    if let Some(Cow::Owned(domain)) = domain {
        info.domain = domain;
    }
    match country::to_upper(&info.country) {
        Some(country) => country.clone_into(&mut info.country),
        None => found.add(at, "country", "must be an ISO 3166-1 alpha-2 country code, such as CN"),
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
        found.add(at, "sans", MORE);
    }
}
