//! The results of reading a configuration other than its values.

use super::{
    problems::{Problem, one_line},
    settings::{Setting, Settings},
};

/// The problems, warnings and settings of a configuration, in the order of reading.
#[derive(Default)]
pub(in crate::config) struct Report {
    pub(in crate::config) problems: Vec<Problem>,
    pub(in crate::config) warnings: Vec<String>,
    pub(in crate::config) settings: Settings,
}

impl Report {
    /// Adds a mistake.
    pub(in crate::config) fn problem(&mut self, location: impl AsRef<str>, message: impl AsRef<str>) {
        self.problems.push(Problem::new(location, message));
    }

    /// Adds a warning once: several settings may depend on the same variable.
    pub(in crate::config) fn warning(&mut self, location: &str, message: &str) {
        let line = one_line(&format!("{location}: {message}"));
        if !self.warnings.contains(&line) {
            self.warnings.push(line);
        }
    }

    /// Adds a value that is in effect.
    pub(in crate::config) fn setting(&mut self, name: &str, value: &str, source: &str) {
        self.settings.0.push(Setting::new(name, value, source));
    }
}
