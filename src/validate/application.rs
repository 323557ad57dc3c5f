//! The names of a certificate application: `domain`, `sans` and `csr`.

use std::borrow::Cow;

use super::{Violations, csr, domain, names};

const NEEDS_FILE: &str = "must be a host name: an IPv4 address needs FILE in domain_method";
const HOST_OR_IPV4: &str =
    "must be a host name, or an IPv4 address of four numbers from 0 to 255 without leading zeros";
const NO_SANS: &str = "must be empty: a certificate for an IPv4 address has no other names";

/// Checks the names of an application whose domain is a host name, and converts them to the form that is sent. `csr` may
/// be empty.
pub fn check(domain: &mut String, sans: &mut [String], csr: &str, at: &str, found: &mut Violations) {
    host(domain, sans, csr, at, found, |rule| rule);
}

/// Checks the names of ApplyCertificate. With FILE in `domain_method`, the domain may also be an IPv4 address.
pub fn apply(
    domain: &mut String,
    domain_method: &str,
    sans: &mut [String],
    csr: Option<&str>,
    at: &str,
    found: &mut Violations,
) {
    let csr = csr.unwrap_or_default();
    let is_file = domain_method.eq_ignore_ascii_case("FILE");
    match (domain::ipv4(domain), is_file) {
        (None, false) => host(domain, sans, csr, at, found, |rule| rule),
        (None, true) => host(domain, sans, csr, at, found, |rule| match rule {
            domain::IP | domain::DIGITS => HOST_OR_IPV4,
            rule => rule,
        }),
        (Some(_), false) => host(domain, sans, csr, at, found, |_| NEEDS_FILE),
        (Some(_), true) => {
            if !sans.is_empty() {
                found.add(at, "sans", NO_SANS);
            }
            request(csr, Some(domain), at, found);
        }
    }
}

/// Checks the names of an application for a host name. `explain` replaces the rule that the domain violates.
fn host(
    domain: &mut String,
    sans: &mut [String],
    csr: &str,
    at: &str,
    found: &mut Violations,
    explain: impl Fn(&'static str) -> &'static str,
) {
    let ascii = found.report(at, "domain", domain::to_ascii(domain).map_err(explain));
    names::sans(sans, ascii.as_deref(), at, found);
    request(csr, ascii.as_deref(), at, found);
    if let Some(Cow::Owned(ascii)) = ascii {
        *domain = ascii;
    }
}

/// Checks a signing request, which may be empty.
fn request(csr: &str, domain: Option<&str>, at: &str, found: &mut Violations) {
    if !csr.is_empty() {
        found.report(at, "csr", csr::check(csr, domain));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP_CSR: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/csr/san_only.pem"));

    /// Returns the violations of ApplyCertificate with a domain, by field.
    fn applied(domain: &str, method: &str, sans: &[&str], csr: Option<&str>) -> Vec<(String, &'static str)> {
        let mut found = Violations(Vec::new());
        let mut sans: Vec<String> = sans.iter().map(|name| (*name).to_owned()).collect();
        apply(&mut domain.to_owned(), method, &mut sans, csr, "", &mut found);
        found.0.into_iter().map(|violation| (violation.field, violation.description)).collect()
    }

    #[test]
    fn an_ipv4_address_needs_validation_by_file() {
        for method in ["FILE", "file", "File"] {
            assert_eq!(applied("192.0.2.1", method, &[], None), [], "{method}");
            assert_eq!(applied("192.0.2.1", method, &[], Some("")), [], "{method}");
            assert_eq!(applied("www.example.com", method, &["example.com"], None), [], "{method}");
        }
        for method in ["DNS", "EMAIL", "", "FILES", " FILE"] {
            assert_eq!(applied("192.0.2.1", method, &[], None), [("domain".to_owned(), NEEDS_FILE)], "{method}");
        }
        let bad = ["192.0.2.01", "192.0.2.256", "192.0.2", "::1", "[192.0.2.1]", "*.192.0.2.1", "192.0.2.1.5"];
        for domain in bad {
            assert_eq!(applied(domain, "FILE", &[], None), [("domain".to_owned(), HOST_OR_IPV4)], "{domain}");
            let [(_, rule)] = <[_; 1]>::try_from(applied(domain, "DNS", &[], None)).expect("one violation");
            assert!([domain::IP, domain::DIGITS].contains(&rule), "{domain} {rule}");
        }
        for domain in ["", "192.0.2.1 ", "https://192.0.2.1", "192.0.2.1:80", "example"] {
            assert_eq!(applied(domain, "FILE", &[], None), applied(domain, "DNS", &[], None), "{domain}");
        }
    }

    #[test]
    fn an_application_for_an_address_has_no_other_name() {
        let expected = [("sans".to_owned(), NO_SANS)];
        assert_eq!(applied("192.0.2.1", "FILE", &["www.example.com"], None), expected);
        assert_eq!(applied("192.0.2.1", "FILE", &["bad", ""], Some(IP_CSR)), expected);
        assert_eq!(applied("192.0.2.1", "FILE", &[], Some(IP_CSR)), []);
        let [(field, _)] = <[_; 1]>::try_from(applied("192.0.2.2", "FILE", &[], Some(IP_CSR))).expect("one violation");
        assert_eq!(field, "csr");
    }

    #[test]
    fn names_are_converted_and_all_violations_reported() {
        let mut found = Violations(Vec::new());
        let (mut domain, mut sans) = ("b\u{fc}cher.example".to_owned(), vec!["\u{fc}.example".to_owned()]);
        check(&mut domain, &mut sans, "", "info.", &mut found);
        assert_eq!((domain.as_str(), sans), ("xn--bcher-kva.example", vec!["xn--tda.example".to_owned()]));
        check(&mut "bad".to_owned(), &mut ["bad".to_owned()], "bad", "info.", &mut found);
        let fields: Vec<_> = found.0.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["info.domain", "info.sans[0]", "info.csr"]);
        let fields: Vec<_> = applied("bad", "DNS", &["bad"], Some("bad")).into_iter().map(|(field, _)| field).collect();
        assert_eq!(fields, ["domain", "sans[0]", "csr"]);
    }
}
