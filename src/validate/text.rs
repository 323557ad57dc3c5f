//! Rules for plain text fields: length, control characters, identifiers.

use crate::scan::{self, ByteSet};

const BLANK: &str = "must not be empty or blank";
const CONTROL: &str = "must not contain control characters: remove line breaks, tabs and similar";
pub(super) const CONTROL_IN_PEM: &str = "must not contain control characters other than line breaks and tabs";
const ENTRY: &str = "must not be empty, and must not contain ';' or ',', which separate the entries";
const ID: &str = "must be 1 to 64 characters out of A-Z, a-z, 0-9, '-' and '_'";

/// The largest length of an identifier.
const MAX_ID: usize = 64;

/// The rules of a text, with what they say to a caller.
#[derive(Debug)]
pub struct Rules {
    /// The smallest number of characters (Unicode scalar values).
    pub min_len: usize,
    /// The largest number of characters.
    pub max_len: usize,
    /// The largest number of bytes in UTF-8.
    pub max_bytes: usize,
    /// Whether one character has to be other than whitespace.
    pub not_blank: bool,
    /// Whether line ends and tabs are allowed, as in PEM texts.
    pub multiline: bool,
    /// The rule for the length in words.
    pub limit: &'static str,
}

/// The rules of a text without any but those of all texts.
#[cfg(test)]
pub const PLAIN: Rules =
    Rules { min_len: 0, max_len: usize::MAX, max_bytes: usize::MAX, not_blank: false, multiline: false, limit: "" };

/// Checks a text.
pub fn check(value: &str, rules: &Rules) -> Result<(), &'static str> {
    if rules.not_blank && is_blank(value) {
        return Err(BLANK);
    }
    if is_plain(value) {
        return check_length(value.len(), value.len(), rules);
    }
    check_length(value.chars().count(), value.len(), rules)?;
    if rules.multiline { no_control_characters_in_pem(value) } else { no_control_characters(value) }
}

/// Checks the length of a list that is sent as one text.
pub fn check_joined(list: &[String], separator: &str, rules: &Rules) -> Result<(), &'static str> {
    let separators = separator.len() * list.len().saturating_sub(1);
    let sum = |length: fn(&String) -> usize| separators + list.iter().map(length).sum::<usize>();
    check_length(sum(|entry| entry.chars().count()), sum(String::len), rules)
}

fn check_length(characters: usize, bytes: usize, rules: &Rules) -> Result<(), &'static str> {
    let fits = (rules.min_len..=rules.max_len).contains(&characters) && bytes <= rules.max_bytes;
    if fits { Ok(()) } else { Err(rules.limit) }
}

/// Checks an entry of a list that is sent as one text: it must not be taken for none, or for two.
pub fn joinable(entry: &str) -> Result<(), &'static str> {
    if entry.is_empty() || entry.contains([';', ',']) { Err(ENTRY) } else { no_control_characters(entry) }
}

/// Checks that a text is one of `words` in any case, and replaces it by the word.
pub fn word(value: &mut String, words: &[&str], rule: &'static str) -> Result<(), &'static str> {
    let word = words.iter().find(|word| word.eq_ignore_ascii_case(value)).ok_or(rule)?;
    (*word).clone_into(value);
    Ok(())
}

/// Checks that `value` has no control character except those of a PEM text.
pub(super) fn no_control_characters_in_pem(value: &str) -> Result<(), &'static str> {
    if value.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(CONTROL_IN_PEM);
    }
    Ok(())
}

/// Checks that `value` has no character of the Unicode category Cc.
pub(crate) fn no_control_characters(value: &str) -> Result<(), &'static str> {
    if value.chars().any(char::is_control) {
        return Err(CONTROL);
    }
    Ok(())
}

/// Returns whether a text is ASCII without control characters, as most are.
fn is_plain(value: &str) -> bool {
    !scan::any(value, |word| word.has_non_ascii() | word.has_less(0x20) | word.has(0x7f))
}

/// Checks that `value` is an identifier: `[0-9A-Za-z_-]{1,64}`.
pub(crate) fn id(value: &str) -> Result<(), &'static str> {
    if is_id(value) { Ok(()) } else { Err(ID) }
}

/// Returns whether a value is an identifier, which is safe as a path segment.
pub(crate) fn is_id(value: &str) -> bool {
    static ALLOWED: ByteSet = ByteSet::alphanumeric_and(b"-_");
    (1..=MAX_ID).contains(&value.len()) && ALLOWED.has_all(value)
}

/// Returns whether a value has only Unicode White_Space. A zero width space is not White_Space.
fn is_blank(value: &str) -> bool {
    value.chars().all(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: &str = "has another length";

    fn length(min_len: usize, max_len: usize) -> Rules {
        Rules { min_len, max_len, limit: LIMIT, ..PLAIN }
    }

    #[test]
    fn length_is_counted_in_characters() {
        for character in ["a", "é", "中", "😀"] {
            assert_eq!(check(&character.repeat(63), &length(1, 63)), Ok(()), "{character}");
            assert_eq!(check(&character.repeat(64), &length(1, 63)), Err(LIMIT), "{character}");
            let bytes = Rules { max_bytes: 12, ..length(0, 63) };
            assert_eq!(check(&character.repeat(3), &bytes), Ok(()), "{character}");
            assert_eq!(check(&character.repeat(13), &bytes), Err(LIMIT), "{character}");
        }
    }

    #[test]
    fn a_combining_mark_counts_as_a_character() {
        assert_eq!(check("e\u{301}", &length(0, 2)), Ok(()));
        assert!(check("e\u{301}", &length(0, 1)).is_err());
    }

    #[test]
    fn a_text_may_be_only_whitespace_unless_it_says_otherwise() {
        let not_blank = Rules { not_blank: true, ..length(0, 63) };
        for value in ["", " ", "\u{a0}", "\u{2003}\u{3000}", "\u{2028}"] {
            assert_eq!(check(value, &length(0, 63)), Ok(()), "{value:?}");
            assert_eq!(check(value, &not_blank), Err(BLANK), "{value:?}");
        }
        for value in ["a", " a ", "\u{200b}"] {
            assert_eq!(check(value, &not_blank), Ok(()), "{value:?}");
        }
    }

    #[test]
    fn values_below_the_minimum_length_are_rejected() {
        assert!(check("a", &length(2, 3)).is_err());
        assert_eq!(check("ab", &length(2, 3)), Ok(()));
    }

    #[test]
    fn control_characters_are_rejected_at_any_position() {
        let multiline = Rules { multiline: true, ..PLAIN };
        for control in ['\0', '\t', '\n', '\r', '\u{1b}', '\u{7f}', '\u{80}', '\u{85}', '\u{9f}'] {
            for value in [format!("{control}a"), format!("a{control}b"), format!("a{control}")] {
                assert_eq!(check(&value, &PLAIN), Err(CONTROL), "{value:?}");
                let in_pem = if matches!(control, '\t' | '\n' | '\r') { Ok(()) } else { Err(CONTROL_IN_PEM) };
                assert_eq!(check(&value, &multiline), in_pem, "{value:?}");
            }
        }
    }

    #[test]
    fn a_word_is_replaced_by_its_spelling() {
        let words = |value: &str| {
            let mut value = value.to_owned();
            word(&mut value, &["certStatus", "CDN"], LIMIT).map(|()| value)
        };
        assert_eq!(words("CERTSTATUS"), Ok("certStatus".to_owned()));
        assert_eq!(words("cdn"), Ok("CDN".to_owned()));
        for unknown in ["", "cd", "cdn ", "ｃdn", "elb"] {
            assert_eq!(words(unknown), Err(LIMIT), "{unknown:?}");
        }
    }

    #[test]
    fn the_length_of_a_joined_list_has_the_separators() {
        let list: Vec<_> = ["ab", "é"].map(str::to_owned).into();
        assert_eq!(check_joined(&list, ";", &length(4, 4)), Ok(()));
        assert_eq!(check_joined(&list, ";", &length(0, 3)), Err(LIMIT));
        assert_eq!(check_joined(&[], ";", &length(0, 0)), Ok(()));
        for entry in ["", "a;b", "a,b"] {
            assert_eq!(joinable(entry), Err(ENTRY), "{entry:?}");
        }
        assert_eq!(joinable("a\n"), Err(CONTROL));
    }

    #[test]
    fn format_characters_and_separators_are_allowed() {
        for value in ["a\u{200b}b", "a\u{ad}b", "a\u{2028}b", "a\u{feff}b", "\u{e000}", ""] {
            assert_eq!(no_control_characters(value), Ok(()), "{value:?}");
        }
    }

    #[test]
    fn identifiers_are_checked() {
        let longest = "x".repeat(64);
        for value in ["scs1600000000000", "a", "A-b_9", "-", "_", longest.as_str()] {
            assert_eq!(id(value), Ok(()), "{value:?}");
        }
        let too_long = "x".repeat(65);
        for value in ["", " ", "a b", "a.b", "a/b", "é", "１", "a\n", "a\0", too_long.as_str()] {
            assert_eq!(id(value), Err(ID), "{value:?}");
        }
    }
}
