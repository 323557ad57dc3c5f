//! Validates requests before anything is sent. Reports all invalid fields at once, by proto path and never with a
//! value.

use std::ops::Deref;

use crate::error::{Error, Violation};

pub mod application;
pub mod certificate;
pub mod country;
pub mod csr;
mod custom;
mod der;
pub mod domain;
#[cfg(test)]
mod fixtures;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod identity;
pub mod names;
mod pem;
mod private_key;
mod public_key;
pub mod text;

/// The largest number of invalid entries of a list that are named. A status is sent in headers, which some clients limit
/// to 8 KiB.
const MAX_NAMED: usize = 16;

/// The rule of a list that has too many violations to name them all.
const MORE: &str = "has more entries to correct: only the first violations are listed";

/// A message that can be checked. `build.rs` generates the checks; `custom.rs` has the rules that annotations cannot
/// express.
pub trait Check {
    /// Adds every field that violates its rule to `found`, and normalizes the others for sending. `at` is the proto
    /// path of this message with a trailing dot, or empty for the request.
    fn check(&mut self, at: &str, found: &mut Violations);
}

/// A message that has passed its checks, normalized for sending.
#[derive(Debug)]
pub struct Checked<T>(T);

impl<T> Deref for Checked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Checks a request.
pub fn check<T: Check>(mut request: T) -> Result<Checked<T>, Error> {
    let mut found = Violations(Vec::new());
    request.check("", &mut found);
    if found.0.is_empty() { Ok(Checked(request)) } else { Err(Error::invalid(found.0)) }
}

/// The violations found so far.
#[derive(Debug)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// Adds a violation by the field `name` of the message at `at`. Only the first violation by a field counts.
    pub fn add(&mut self, at: &str, name: &str, description: &'static str) {
        let is_same = |violation: &Violation| violation.field.strip_prefix(at).is_some_and(|field| field == name);
        if !self.0.iter().any(is_same) {
            self.0.push(Violation { field: format!("{at}{name}"), description });
        }
    }

    /// Adds the violation in `result`, if any.
    pub fn report<T>(&mut self, at: &str, name: &str, result: Result<T, &'static str>) -> Option<T> {
        result.map_err(|rule| self.add(at, name, rule)).ok()
    }

    /// Checks an id.
    pub fn id(&mut self, at: &str, name: &str, value: &str) {
        self.report(at, name, text::id(value));
    }

    /// Checks a text.
    pub fn text(&mut self, at: &str, name: &str, value: &str, rules: &text::Rules) {
        self.report(at, name, text::check(value, rules));
    }

    /// Checks that a text is one of `words` in any case, and replaces it by the word.
    pub fn word(&mut self, at: &str, name: &str, value: &mut String, words: &[&str], rule: &'static str) {
        self.report(at, name, text::word(value, words, rule));
    }

    /// Checks the ids of a list.
    pub fn ids(&mut self, at: &str, name: &str, list: &[String]) {
        self.entries(at, name, list.iter(), |id| text::id(id));
    }

    /// Checks the texts of a list.
    pub fn texts(&mut self, at: &str, name: &str, list: &[String], rules: &text::Rules) {
        self.entries(at, name, list.iter(), |value| text::check(value, rules));
    }

    /// Checks the entries of a list that are words.
    pub fn words(&mut self, at: &str, name: &str, list: &mut [String], words: &[&str], rule: &'static str) {
        self.entries(at, name, list.iter_mut(), |value| text::word(value, words, rule));
    }

    /// Checks a list that is sent as one text.
    pub fn joined(&mut self, at: &str, name: &str, list: &[String], separator: &str, rules: &text::Rules) {
        self.entries(at, name, list.iter(), |entry| text::joinable(entry));
        self.report(at, name, text::check_joined(list, separator, rules));
    }

    /// Checks every entry of a list, and names the first invalid ones.
    pub fn entries<T>(
        &mut self,
        at: &str,
        name: &str,
        entries: impl Iterator<Item = T>,
        mut check: impl FnMut(T) -> Result<(), &'static str>,
    ) {
        let mut invalid = 0;
        for (index, entry) in entries.enumerate() {
            let Err(rule) = check(entry) else { continue };
            if invalid == MAX_NAMED {
                return self.add(at, name, MORE);
            }
            invalid += 1;
            self.add(at, &format!("{name}[{index}]"), rule);
        }
    }

    /// Checks a required message.
    pub fn required<T: Check>(&mut self, at: &str, name: &str, message: Option<&mut T>) {
        match message {
            Some(message) => message.check(&format!("{at}{name}."), self),
            None => self.add(at, name, "is required"),
        }
    }

    /// Checks an optional message.
    pub fn optional<T: Check>(&mut self, at: &str, name: &str, message: Option<&mut T>) {
        if let Some(message) = message {
            message.check(&format!("{at}{name}."), self);
        }
    }

    /// Checks every message of a list, until enough violations are named.
    pub fn each<T: Check>(&mut self, at: &str, name: &str, messages: &mut [T]) {
        let before = self.0.len();
        for (index, message) in messages.iter_mut().enumerate() {
            if self.0.len() - before >= MAX_NAMED {
                return self.add(at, name, MORE);
            }
            message.check(&format!("{at}{name}[{index}]."), self);
        }
    }
}

include!(concat!(env!("OUT_DIR"), "/checks.rs"));

#[cfg(test)]
mod tests {
    use super::{Check, Violations, check, text};

    struct Leaf(String);

    struct Tree {
        names: Vec<String>,
        leaves: Vec<Leaf>,
        leaf: Option<Leaf>,
    }

    impl Check for Leaf {
        fn check(&mut self, at: &str, found: &mut Violations) {
            found.text(at, "name", &self.0, &text::PLAIN);
        }
    }

    impl Check for Tree {
        fn check(&mut self, at: &str, found: &mut Violations) {
            found.texts(at, "names", &self.names, &text::PLAIN);
            found.each(at, "leaves", &mut self.leaves);
            found.optional(at, "leaf", self.leaf.as_mut());
            found.required::<Leaf>(at, "root", None);
        }
    }

    #[test]
    fn fields_are_named_by_path_and_index() {
        let invalid = || "\0".to_owned();
        let tree = Tree {
            names: vec![String::new(), invalid()],
            leaves: vec![Leaf(String::new()), Leaf(invalid())],
            leaf: Some(Leaf(invalid())),
        };
        let error = check(tree).err().unwrap();
        let fields: Vec<_> = error.violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["names[1]", "leaves[1].name", "leaf.name", "root"]);
    }
}
