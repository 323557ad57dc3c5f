//! A value before it is parsed.

use toml::Value;

/// A value as the file or a variable gives it. Has no `Debug`, because the value may be a secret.
pub(in crate::config) enum Raw {
    File(Value),
    Variable(String),
}

impl Raw {
    /// Returns the value if it is text. `expects` describes the expected text, with its article.
    pub(in crate::config) fn text(&self, expects: &str) -> Result<&str, String> {
        match self {
            Self::File(Value::String(text)) => Ok(text),
            Self::Variable(text) if text.contains(char::REPLACEMENT_CHARACTER) => Err("is not UTF-8".to_owned()),
            Self::Variable(text) => Ok(text),
            Self::File(_) => Err(self.wrong_type(expects)),
        }
    }

    /// Returns the message about a value of the wrong type. It names both types and not the value.
    pub(in crate::config) fn wrong_type(&self, expects: &str) -> String {
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
