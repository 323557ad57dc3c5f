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

/// Formats a URL like [`shown_url`], with its path and query redacted unless they are this path. Some services have a token
/// in the path.
pub(in crate::config) fn shown_url_with_path(url: &str, path: &str) -> String {
    let start = url.find("://").map_or(0, |scheme| scheme + 3);
    match url[start..].find(['/', '?']).map(|length| url.split_at(start + length)) {
        Some((origin, rest)) if rest != "/" && rest != path => shown_url(&format!("{origin}/[REDACTED]")),
        _ => shown_url(url),
    }
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

#[cfg(test)]
mod tests {
    use super::shown_url_with_path;

    #[test]
    fn the_path_of_a_url_is_redacted_unless_it_is_known() {
        for (url, expected) in [
            ("http://collector:4318/v1/traces", "\"http://collector:4318/v1/traces\""),
            ("http://collector:4317", "\"http://collector:4317\""),
            ("http://collector:4317/", "\"http://collector:4317/\""),
            ("https://collector/receiver/v1/otlp/s3cr3t", "\"https://collector/[REDACTED]\""),
            ("https://collector/s3cr3t/v1/traces", "\"https://collector/[REDACTED]\""),
            ("https://collector?key=s3cr3t", "\"https://collector/[REDACTED]\""),
            ("https://collector/v1/traces?key=s3cr3t", "\"https://collector/[REDACTED]\""),
            ("https://user:s3cr3t@collector/v1/traces", "[REDACTED]"),
        ] {
            assert_eq!(shown_url_with_path(url, "/v1/traces"), expected, "{url}");
        }
    }
}
