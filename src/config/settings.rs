//! The effective configuration, as `--check` shows it: each key that has a value, and where the value came from.

use std::fmt;

use toml::Value;

use super::problems::one_line;
use super::raw::Raw;

/// One key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    place: String,
    value: String,
    /// `default`, `file`, `environment` or the name of a variable.
    source: String,
}

impl Setting {
    pub(super) fn new(place: &str, value: &str, source: &str) -> Self {
        Self { place: one_line(place), value: one_line(value), source: one_line(source) }
    }

    /// The key and its value, as in `server.drain = "20s"`.
    pub fn assignment(&self) -> String {
        format!("{} = {}", self.place, self.value)
    }
}

/// Displays all of them, a line each, what they come from in a column of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings(pub(super) Vec<Setting>);

impl Settings {
    /// All keys that have a value, in the order of reading.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.0.iter()
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let assignments: Vec<_> = self.iter().map(Setting::assignment).collect();
        let width = assignments.iter().map(|text| text.chars().count()).max().unwrap_or_default();
        for (index, (assignment, setting)) in assignments.iter().zip(self.iter()).enumerate() {
            let end = if index > 0 { "\n" } else { "" };
            write!(f, "{end}{assignment:width$}  # {}", setting.source)?;
        }
        Ok(())
    }
}

/// A value as a file would have it. A variable's text stands without quotes where it needs none.
pub(super) fn shown(raw: &Raw) -> String {
    match raw {
        Raw::Variable(text) if text.parse::<i64>().is_ok() || text.parse::<bool>().is_ok() => text.clone(),
        Raw::Variable(text) => format!("{text:?}"),
        Raw::File(value) => toml(value),
    }
}

/// A URL without what it may hold of user and password.
pub(super) fn shown_url(url: &str) -> String {
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
