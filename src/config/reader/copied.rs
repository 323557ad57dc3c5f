//! Names the characters that a copied text brings along and that are hard to see in a value.

use toml::Value;

use super::raw::Raw;
use crate::validate::domain::{DASHES, QUOTATION_MARKS};

/// Returns the kind of the first such character, with its article.
pub(in crate::config) fn kind(text: &str) -> Option<&'static str> {
    text.chars().find_map(|character| match character {
        '"' | '\'' | '`' => None,
        _ if QUOTATION_MARKS.contains(&character) => Some("a typographic quotation mark"),
        _ if DASHES.contains(&character) => Some("a typographic dash"),
        '\u{feff}' => Some("a byte order mark"),
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' => {
            Some("an invisible character")
        }
        ' ' => None,
        '\r' => Some("a carriage return"),
        _ if character.is_control() => Some("a control character"),
        _ if character.is_whitespace() => Some("a non-breaking or other special space"),
        _ => None,
    })
}

/// Returns the end of a message about a text that has such a character, otherwise nothing.
pub(in crate::config) fn hint(text: &str) -> String {
    let is_padded = || (text.trim() != text).then_some("a space at its start or end");
    kind(text).or_else(is_padded).map(|found| format!(" (the value has {found})")).unwrap_or_default()
}

/// Returns the end of a message about a value, of which any text may have such a character.
pub(super) fn hint_of(raw: &Raw) -> String {
    match raw {
        Raw::Variable(text) | Raw::File(Value::String(text)) => hint(text),
        Raw::File(Value::Array(values)) => {
            let hints = values.iter().filter_map(Value::as_str).map(hint);
            hints.into_iter().find(|hint| !hint.is_empty()).unwrap_or_default()
        }
        Raw::File(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::hint;

    #[test]
    fn characters_of_copied_texts_are_named() {
        for (text, found) in [
            ("\u{201c}127.0.0.1:1\u{201d}", Some("a typographic quotation mark")),
            ("\u{2018}x\u{2019}", Some("a typographic quotation mark")),
            ("\u{ab}x\u{bb}", Some("a typographic quotation mark")),
            ("cn\u{2011}north\u{2011}4", Some("a typographic dash")),
            ("cn\u{2013}north", Some("a typographic dash")),
            ("\u{feff}x", Some("a byte order mark")),
            ("x\u{200b}", Some("an invisible character")),
            ("x\u{2060}y", Some("an invisible character")),
            ("x\u{a0}y", Some("a non-breaking or other special space")),
            ("10\u{202f}s", Some("a non-breaking or other special space")),
            ("x\r", Some("a carriage return")),
            ("x\ty", Some("a control character")),
            (" x", Some("a space at its start or end")),
            ("x ", Some("a space at its start or end")),
            ("x y", None),
            ("b\u{fc}cher", None),
            ("", None),
        ] {
            let expected = found.map(|found| format!(" (the value has {found})")).unwrap_or_default();
            assert_eq!(hint(text), expected, "{text:?}");
        }
    }
}
