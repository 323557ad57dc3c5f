//! The effective configuration as `--check` shows it: each key that has a value, and the source of the value.

use std::fmt;

use toml::Value;

use super::{problems::one_line, raw::Raw};

/// A key with its value and source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    name: String,
    value: String,
    /// `default`, `file`, `environment` or the name of a variable.
    source: String,
}

impl Setting {
    pub(super) fn new(name: &str, value: &str, source: &str) -> Self {
        Self { name: one_line(name), value: one_line(value), source: one_line(source) }
    }

    /// Returns the key and its value, as in `server.drain = "20s"`.
    pub fn assignment(&self) -> String {
        format!("{} = {}", self.name, self.value)
    }

    /// Returns whether this is the setting of the key `name`.
    pub(super) fn is_of(&self, name: &str) -> bool {
        self.name == name
    }
}

/// All settings. Displays one line for each, with the sources aligned in a column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings(pub(super) Vec<Setting>);

impl Settings {
    /// Returns all keys that have a value, in the order of reading.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.0.iter()
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let assignments: Vec<_> = self.iter().map(Setting::assignment).collect();
        let width = assignments.iter().map(|text| text.chars().count()).max().unwrap_or_default();
        for (index, (assignment, setting)) in assignments.iter().zip(self.iter()).enumerate() {
            let separator = if index > 0 { "\n" } else { "" };
            write!(f, "{separator}{assignment:width$}  # {}", setting.source)?;
        }
        Ok(())
    }
}

/// Formats a value as in a TOML file. Numbers and booleans from variables have no quotes.
pub(in crate::config) fn shown(raw: &Raw) -> String {
    match raw {
        Raw::Variable(text) if text.parse::<i64>().is_ok() || text.parse::<bool>().is_ok() => text.clone(),
        Raw::Variable(text) => format!("{text:?}"),
        Raw::File(value) => toml(value),
    }
}

/// Formats a URL, redacted if it may contain a user and password.
pub(in crate::config) fn shown_url(url: &str) -> String {
    if url.contains('@') { "[REDACTED]".to_owned() } else { format!("{url:?}") }
}

fn toml(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(value) => value.to_string(),
        Value::Datetime(date) => date.to_string(),
        Value::Array(values) => format!("[{}]", values.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Value::Table(_) => "{…}".to_owned(),
    }
}
