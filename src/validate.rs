//! Validates requests before anything is sent. Reports all invalid fields at once, by proto path and never with a
//! value.

use std::ops::Deref;

use crate::error::{Error, Violation};

mod certificate_info;
pub mod country;
pub mod csr;
pub mod domain;
pub mod identity;
pub mod text;

/// A message that can be checked. `build.rs` generates the checks of plain messages; messages with custom rules are
/// implemented here.
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
    /// Adds a violation by the field `name` of the message at `at`.
    pub fn add(&mut self, at: &str, name: &str, description: &'static str) {
        self.0.push(Violation { field: format!("{at}{name}"), description });
    }

    /// Adds the violation in `result`, if any.
    pub fn report<T>(&mut self, at: &str, name: &str, result: Result<T, &'static str>) -> Option<T> {
        result.map_err(|rule| self.add(at, name, rule)).ok()
    }

    /// Checks an id for the path.
    pub fn id(&mut self, at: &str, name: &str, value: &str) {
        self.report(at, name, text::id(value));
    }

    /// Checks a string without custom rules.
    pub fn text(&mut self, at: &str, name: &str, value: &str) {
        self.report(at, name, text::no_control_characters(value));
    }

    /// Checks a required message.
    pub fn required<T: Check>(&mut self, at: &str, name: &str, message: Option<&mut T>) {
        match message {
            Some(message) => message.check(&format!("{at}{name}."), self),
            None => self.add(at, name, "is required"),
        }
    }

    /// Checks every string of a list.
    pub fn texts(&mut self, at: &str, name: &str, values: &[String]) {
        for (index, value) in values.iter().enumerate() {
            self.text(at, &format!("{name}[{index}]"), value);
        }
    }

    /// Checks an optional message.
    pub fn optional<T: Check>(&mut self, at: &str, name: &str, message: Option<&mut T>) {
        if let Some(message) = message {
            message.check(&format!("{at}{name}."), self);
        }
    }

    /// Checks every message of a list.
    pub fn each<T: Check>(&mut self, at: &str, name: &str, messages: &mut [T]) {
        for (index, message) in messages.iter_mut().enumerate() {
            message.check(&format!("{at}{name}[{index}]."), self);
        }
    }
}

include!(concat!(env!("OUT_DIR"), "/checks.rs"));

#[cfg(test)]
mod tests {
    use super::{Check, Violations, check};

    struct Leaf(String);

    struct Tree {
        names: Vec<String>,
        leaves: Vec<Leaf>,
        leaf: Option<Leaf>,
    }

    impl Check for Leaf {
        fn check(&mut self, at: &str, found: &mut Violations) {
            found.text(at, "name", &self.0);
        }
    }

    impl Check for Tree {
        fn check(&mut self, at: &str, found: &mut Violations) {
            found.texts(at, "names", &self.names);
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
