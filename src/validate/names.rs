//! Rules for lists of host names.

use std::{borrow::Cow, collections::HashSet};

use super::{Violations, domain};

/// The largest number of names in a list, which bounds the cost of a check. No certificate has as many.
const MAX_NAMES: usize = 2_000;

const TOO_MANY: &str = "must have at most 2,000 entries";
const DUPLICATE: &str = "must not be the same as another entry or as the domain";

/// Checks every name like a domain, and converts it to the form that is sent. `field` is the name of the list.
pub fn domains(names: &mut [String], field: &str, at: &str, found: &mut Violations) {
    each(names, field, |_| true, at, found);
}

/// Checks the list `sans`: every name like a domain, no duplicates and not the domain itself, compared in the form that is
/// sent. `domain` is in that form, or `None` if it is invalid.
pub fn sans(names: &mut [String], domain: Option<&str>, at: &str, found: &mut Violations) {
    if names.is_empty() {
        return;
    }
    let mut seen: HashSet<String> = domain.map(str::to_ascii_lowercase).into_iter().collect();
    each(names, "sans", |name| seen.insert(name.to_ascii_lowercase()), at, found);
}

/// Checks every name, and whether it is new.
fn each(names: &mut [String], field: &str, mut is_new: impl FnMut(&str) -> bool, at: &str, found: &mut Violations) {
    if names.len() > MAX_NAMES {
        return found.add(at, field, TOO_MANY);
    }
    found.entries(at, field, names.iter_mut(), |name| {
        let ascii = domain::to_ascii(name)?;
        let is_new = is_new(&ascii);
        if let Cow::Owned(ascii) = ascii {
            *name = ascii;
        }
        if is_new { Ok(()) } else { Err(DUPLICATE) }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the violations of a list, by entry or list.
    fn violations(check: impl Fn(&mut [String], &mut Violations), names: &[&str]) -> (Vec<String>, Vec<String>) {
        let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut found = Violations(Vec::new());
        check(&mut names, &mut found);
        (names, found.0.into_iter().map(|violation| violation.field).collect())
    }

    #[test]
    fn every_entry_is_checked_and_converted() {
        let names = ["a.example", "*.B\u{fc}cher.example", "bad", "A.example", "a.example", ""];
        let sent = ["a.example", "*.xn--bcher-kva.example", "bad", "A.example", "a.example", ""];
        let domains = |names: &mut [String], found: &mut Violations| domains(names, "add_sans", "in.", found);
        assert_eq!(
            violations(domains, &names),
            (sent.map(str::to_owned).to_vec(), ["in.add_sans[2]", "in.add_sans[5]"].map(str::to_owned).to_vec())
        );
        let sans = |names: &mut [String], found: &mut Violations| sans(names, None, "", found);
        let fields = ["sans[2]", "sans[3]", "sans[4]", "sans[5]"].map(str::to_owned).to_vec();
        assert_eq!(violations(sans, &names), (sent.map(str::to_owned).to_vec(), fields));
    }

    #[test]
    fn the_domain_is_no_additional_name() {
        let names = ["WWW.example.com", "example.com", "b\u{fc}cher.example"];
        for (domain, expected) in [
            (Some("www.Example.com"), Some("sans[0]")),
            (Some("example.com"), Some("sans[1]")),
            (Some("XN--bcher-kva.example"), Some("sans[2]")),
            (Some("other.example"), None),
            (None, None),
        ] {
            let sans = |names: &mut [String], found: &mut Violations| sans(names, domain, "", found);
            assert_eq!(violations(sans, &names).1, Vec::from_iter(expected), "{domain:?}");
        }
    }

    #[test]
    fn at_most_16_invalid_entries_are_named() {
        for (count, named) in [(15, 15), (16, 16), (17, 17), (1_000, 17)] {
            let names = vec!["bad"; count];
            let sans = |names: &mut [String], found: &mut Violations| sans(names, None, "", found);
            let (_, fields) = violations(sans, &names);
            assert_eq!(fields.len(), named);
            assert_eq!(fields.contains(&"sans".to_owned()), count > 16);
            let domains = |names: &mut [String], found: &mut Violations| domains(names, "ori_sans", "", found);
            let (_, fields) = violations(domains, &names);
            assert_eq!(fields.len(), named);
            assert_eq!(fields.contains(&"ori_sans".to_owned()), count > 16);
        }
    }

    #[test]
    fn an_empty_list_is_allowed() {
        assert_eq!(violations(|names, found| sans(names, Some("a.example"), "", found), &[]).1, [""; 0]);
        assert_eq!(violations(|names, found| domains(names, "add_sans", "", found), &[]).1, [""; 0]);
    }
}
