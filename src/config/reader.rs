//! Reads a configuration key by key. Variables take precedence over the file, and every mistake is reported.
//!
//! The calls that read keys from a [`Section`] define which keys exist, so that one line declares the name, the default
//! and the parser of a key. Keys that no call reads are unknown.

use std::collections::BTreeMap;

use toml::Table;

use super::Environment;

pub(super) mod copied;
mod problems;
mod raw;
mod report;
pub(super) mod settings;
mod tables;
pub(super) mod values;

pub use problems::{Problem, Problems};
pub use settings::{Setting, Settings};

pub(super) use raw::Raw;
pub(super) use report::Report;

/// The prefix of every variable that sets a key.
const PREFIX: &str = "SCM_GATEWAY__";

/// The variables that are not read yet, and the report so far.
pub(super) struct Input {
    variables: BTreeMap<String, String>,
    pub(super) report: Report,
}

/// A table of the file together with the variables that set its keys.
pub(super) struct Section<'i> {
    input: &'i mut Input,
    /// The prefix of the keys in messages: empty, `server.` or `projects[0].` `None` if the keys are only variables.
    path: Option<String>,
    /// The prefix of the keys' variables.
    prefix: String,
    table: Table,
    known: Vec<&'static str>,
    origins: BTreeMap<&'static str, Origin>,
    /// Hints for messages about the values of keys.
    hints: BTreeMap<&'static str, String>,
}

/// The origin of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    File,
    Variable,
}

impl Input {
    pub(super) fn new(environment: &Environment) -> Self {
        let keys = environment.iter().filter(|(name, _)| name.starts_with(PREFIX));
        let variables = keys.map(|(name, value)| (name.clone(), value.clone())).collect();
        Self { variables, report: Report::default() }
    }

    /// Reads the root of the configuration. Keys and variables that `read` does not take become problems.
    pub(super) fn root<T>(&mut self, table: Table, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        self.section(Some(String::new()), PREFIX.to_owned(), table, read)
    }

    fn section<T>(
        &mut self,
        path: Option<String>,
        prefix: String,
        table: Table,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let mut section = Section {
            input: self,
            path,
            prefix,
            table,
            known: Vec::new(),
            origins: BTreeMap::new(),
            hints: BTreeMap::new(),
        };
        let value = read(&mut section);
        section.finish();
        value
    }

    fn has_variable(&self, prefix: &str) -> bool {
        self.variables.keys().any(|name| name.starts_with(prefix))
    }

    /// Reports the variables with `prefix` that were not taken.
    fn report_unknown(&mut self, prefix: &str, message: &str) {
        self.variables.retain(|name, _| {
            let is_unknown = name.starts_with(prefix);
            if is_unknown {
                self.report.problem(name, message);
            }
            !is_unknown
        });
    }
}

impl Section<'_> {
    /// Takes a key with a default, which is written like the value of a variable.
    pub(super) fn take<T>(&mut self, key: &'static str, default: &str, parse: impl Fn(&Raw) -> Result<T, String>) -> T {
        self.take_or(key, &Raw::Variable(default.to_owned()), parse)
    }

    /// Takes a key with a default, given as a value.
    pub(super) fn take_or<T>(
        &mut self,
        key: &'static str,
        default: &Raw,
        parse: impl Fn(&Raw) -> Result<T, String>,
    ) -> T {
        let value = self.optional(key, &parse);
        if self.origin(key).is_none() {
            self.record_default(key, default);
        }
        // After a problem the configuration is rejected anyway; the default lets the reading continue.
        value.unwrap_or_else(|| parse(default).expect("the default is valid"))
    }

    /// Reports the default as the value of a key.
    pub(super) fn record_default(&mut self, key: &'static str, default: &Raw) {
        let name = self.name(key);
        self.input.report.setting(&name, &settings::shown(default), "default");
    }

    /// Takes a key that may be absent. Returns `None` also for an invalid value, which is reported.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&Raw) -> Result<T, String>,
    ) -> Option<T> {
        self.optional_redacted(key, settings::shown, parse)
    }

    /// Takes a key whose value is redacted by `shown` in the report.
    pub(super) fn optional_redacted<T>(
        &mut self,
        key: &'static str,
        shown: impl FnOnce(&Raw) -> String,
        parse: impl FnOnce(&Raw) -> Result<T, String>,
    ) -> Option<T> {
        let raw = self.raw(key)?;
        let source = match raw {
            Raw::File(_) => "file".to_owned(),
            Raw::Variable(_) if self.path.is_none() => "environment".to_owned(),
            Raw::Variable(_) => self.variable(key),
        };
        match parse(&raw) {
            Ok(value) => {
                let name = self.name(key);
                self.input.report.setting(&name, &shown(&raw), &source);
                Some(value)
            }
            Err(message) => {
                self.problem(key, message);
                None
            }
        }
    }

    /// Removes a key from the settings, because another key overrides it.
    pub(super) fn mark_overridden(&mut self, key: &str) {
        let name = self.name(key);
        self.input.report.settings.0.retain(|setting| !setting.is_of(&name));
    }

    /// Takes a key that is required. `missing` describes its value.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        missing: &str,
        parse: impl FnOnce(&Raw) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.optional(key, parse);
        self.expect(key, missing);
        value
    }

    /// Reports a problem if a key that was taken is missing.
    pub(super) fn expect(&mut self, key: &'static str, missing: &str) {
        if self.origin(key).is_none() {
            self.problem(key, format!("is missing; it is {missing}"));
        }
    }

    /// Returns the origin of the value of a key that was taken, or `None` if it is missing.
    pub(super) fn origin(&self, key: &str) -> Option<Origin> {
        self.origins.get(key).copied()
    }

    /// Returns the name of a key in messages: its variable if that is the origin, otherwise its path in the file.
    fn location(&self, key: &str) -> String {
        match self.origin(key) {
            Some(Origin::Variable) => self.variable(key),
            _ => self.name(key),
        }
    }

    /// Returns the name of a key among the settings.
    fn name(&self, key: &str) -> String {
        self.path.as_ref().map_or_else(|| self.variable(key), |path| format!("{path}{key}"))
    }

    /// Reports a mistake in the value of a key.
    pub(super) fn problem(&mut self, key: &str, message: impl AsRef<str>) {
        let location = self.location(key);
        let hint = self.hints.get(key).map_or("", String::as_str);
        self.input.report.problem(location, format!("{}{hint}", message.as_ref()));
    }

    /// Reports a warning about the value of a key.
    pub(super) fn warning(&mut self, key: &str, message: &str) {
        let location = self.location(key);
        self.input.report.warning(&location, message);
    }

    /// Returns the report, for entries that do not belong to a key of this section.
    pub(super) fn report(&mut self) -> &mut Report {
        &mut self.input.report
    }

    fn raw(&mut self, key: &'static str) -> Option<Raw> {
        self.known.push(key);
        let in_file = self.table.remove(key).map(Raw::File);
        let variable = self.input.variables.remove(&self.variable(key)).map(Raw::Variable);
        let raw = variable.or(in_file)?;
        let origin = match raw {
            Raw::File(_) => Origin::File,
            Raw::Variable(_) => Origin::Variable,
        };
        self.origins.insert(key, origin);
        self.hints.insert(key, copied::hint_of(&raw));
        Some(raw)
    }

    fn variable(&self, key: &str) -> String {
        format!("{}{}", self.prefix, key.to_ascii_uppercase())
    }

    /// Rejects the vendor's variables that were not taken.
    pub(super) fn reject_unknown(&mut self) {
        let known: Vec<_> = self.known.iter().map(|key| self.variable(key)).collect();
        let message = format!("unknown variable; the variables here are {}", known.join(", "));
        self.input.report_unknown(&self.prefix, &message);
    }

    /// Reports the keys and variables that were not taken.
    fn finish(self) {
        let Some(path) = &self.path else { return self.finish_variables() };
        let known: Vec<_> = self.known.iter().map(|key| format!("`{key}`")).collect();
        let message = format!("unknown key; the keys here are {}", known.join(", "));
        for key in self.table.keys() {
            let location = format!("{path}{}", shown(key));
            self.input.report.problem(location, &message);
        }
        self.input.report_unknown(&self.prefix, &message.replacen("key", "variable", 1));
    }

    /// Warns of the vendor's variables that were not taken: another program may have a use for them.
    fn finish_variables(self) {
        let Input { variables, report } = self.input;
        variables.retain(|name, _| {
            let is_unknown = name.starts_with(&self.prefix);
            if is_unknown {
                report.warning(name, "is unknown and ignored");
            }
            !is_unknown
        });
    }
}

/// Formats an unknown key: quoted if TOML requires quotes, and truncated to 64 characters.
fn shown(key: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let truncated: String = key.chars().take(64).collect();
    if !key.is_empty() && key.chars().all(is_bare) { truncated } else { format!("{truncated:?}") }
}
