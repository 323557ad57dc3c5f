//! A value before its parser has seen it.

use toml::Value;

/// A value as it was given. It has no `Debug`, for it may be a secret.
pub(super) enum Raw {
    File(Value),
    Variable(String),
}

impl Raw {
    /// The value, if it is text. `expects` says what the text should be, with its article.
    pub(super) fn text(&self, expects: &str) -> Result<&str, String> {
        match self {
            Self::File(Value::String(text)) => Ok(text),
            Self::Variable(text) if text.contains(char::REPLACEMENT_CHARACTER) => Err("is not UTF-8".to_owned()),
            Self::Variable(text) => Ok(text),
            Self::File(_) => Err(self.mistaken_for(expects)),
        }
    }

    /// The message about a value of the wrong type: both types, and not the value.
    pub(super) fn mistaken_for(&self, expects: &str) -> String {
        let found = match self {
            Self::Variable(_) => "text",
            Self::File(value) => match value {
                Value::String(_) => "a string",
                Value::Integer(_) => "an integer",
                Value::Float(_) => "a float",
                Value::Boolean(_) => "a boolean",
                Value::Datetime(_) => "a date",
                Value::Array(_) => "an array",
                Value::Table(_) => "a table",
            },
        };
        format!("expects {expects}, found {found}")
    }
}
