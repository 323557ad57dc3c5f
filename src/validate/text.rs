//! Rules for plain text fields: length, control characters, identifiers.

const BLANK: &str = "must not be empty or blank";
const CONTROL: &str = "must not contain control characters: remove line breaks, tabs and similar";
const ID: &str = "must be 1 to 64 characters out of A-Z, a-z, 0-9, '-' and '_'";

/// The largest length of an identifier.
const MAX_ID: usize = 64;

/// Checks that `value` has `min` to `max` characters (Unicode scalar values), no control characters and, unless `min`
/// is zero, not only whitespace.
pub(crate) fn check(value: &str, min: usize, max: usize) -> Result<(), &'static str> {
    if min > 0 && is_blank(value) {
        return Err(BLANK);
    }
    // Stops after one character too many, so that a long value costs no more.
    let length = value.chars().take(max.saturating_add(1)).count();
    if !(min..=max).contains(&length) {
        return Err(length_rule(max));
    }
    no_control_characters(value)
}

/// Returns the text of the length rule. Descriptions are constants; only these two maxima are used.
fn length_rule(max: usize) -> &'static str {
    match max {
        63 => "must be at most 63 characters long",
        255 => "must be at most 255 characters long",
        _ => "must not be shorter or longer than its description says",
    }
}

/// Checks that `value` has no character of the Unicode category Cc.
pub(crate) fn no_control_characters(value: &str) -> Result<(), &'static str> {
    if value.chars().any(char::is_control) {
        return Err(CONTROL);
    }
    Ok(())
}

/// Checks that `value` is an identifier: `[0-9A-Za-z_-]{1,64}`.
pub(crate) fn id(value: &str) -> Result<(), &'static str> {
    if is_id(value) { Ok(()) } else { Err(ID) }
}

/// Returns whether a value is an identifier, which is safe as a path segment.
pub(crate) fn is_id(value: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=MAX_ID).contains(&value.len()) && value.bytes().all(allowed)
}

/// Returns whether a value has only Unicode White_Space. A zero width space is not White_Space.
fn is_blank(value: &str) -> bool {
    value.chars().all(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_is_counted_in_characters() {
        for character in ["a", "é", "中", "😀"] {
            assert_eq!(check(&character.repeat(63), 1, 63), Ok(()), "{character}");
            assert_eq!(check(&character.repeat(64), 1, 63), Err("must be at most 63 characters long"), "{character}");
            assert_eq!(check(&character.repeat(255), 0, 255), Ok(()), "{character}");
            assert_eq!(
                check(&character.repeat(256), 0, 255),
                Err("must be at most 255 characters long"),
                "{character}"
            );
        }
    }

    #[test]
    fn a_combining_mark_counts_as_a_character() {
        assert_eq!(check("e\u{301}", 0, 2), Ok(()));
        assert!(check("e\u{301}", 0, 1).is_err());
    }

    #[test]
    fn an_optional_field_may_be_only_whitespace() {
        for value in ["", " ", "\u{3000}"] {
            assert_eq!(check(value, 0, 63), Ok(()), "{value:?}");
        }
    }

    #[test]
    fn a_required_field_must_not_be_only_whitespace() {
        for value in ["", " ", "\u{a0}", "\u{2003}\u{3000}", "\u{2028}"] {
            assert_eq!(check(value, 1, 63), Err(BLANK), "{value:?}");
        }
        for value in ["a", " a ", "\u{200b}"] {
            assert_eq!(check(value, 1, 63), Ok(()), "{value:?}");
        }
    }

    #[test]
    fn values_below_the_minimum_length_are_rejected() {
        assert!(check("a", 2, 3).is_err());
        assert_eq!(check("ab", 2, 3), Ok(()));
    }

    #[test]
    fn control_characters_are_rejected_at_any_position() {
        for control in ['\0', '\t', '\n', '\r', '\u{1b}', '\u{7f}', '\u{80}', '\u{85}', '\u{9f}'] {
            for value in [format!("{control}a"), format!("a{control}b"), format!("a{control}")] {
                assert_eq!(check(&value, 1, 63), Err(CONTROL), "{value:?}");
                assert_eq!(no_control_characters(&value), Err(CONTROL), "{value:?}");
            }
        }
    }

    #[test]
    fn format_characters_and_separators_are_allowed() {
        for value in ["a\u{200b}b", "a\u{ad}b", "a\u{2028}b", "a\u{feff}b", "\u{e000}", ""] {
            assert_eq!(no_control_characters(value), Ok(()), "{value:?}");
        }
    }

    #[test]
    fn the_maximum_length_does_not_overflow() {
        assert_eq!(check("a", 1, usize::MAX), Ok(()));
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
