//! Rules for plain text fields: length, control characters, identifiers.

const BLANK: &str = "must not be empty or blank";
const CONTROL: &str = "must not contain control characters; remove line breaks, tabs and the like";
const ID: &str = "must be 1 to 64 characters out of A-Z, a-z, 0-9, '-' and '_'";

/// The longest identifier.
const ID_MAX: usize = 64;

/// Checks that `value` has `min` to `max` characters (Unicode scalar values), no control
/// characters and, where something is required, something other than white space.
pub(crate) fn check(value: &str, min: usize, max: usize) -> Result<(), &'static str> {
    if min > 0 && is_blank(value) {
        return Err(BLANK);
    }
    // One character beyond the limit settles it: a long value is not counted to its end.
    let length = value.chars().take(max.saturating_add(1)).count();
    if !(min..=max).contains(&length) {
        return Err(length_rule(max));
    }
    no_control_characters(value)
}

/// The rule of length in words. They are constants, since descriptions are: these two maxima are
/// all there are.
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

/// Whether a value is fit for a segment of a path.
pub(crate) fn is_id(value: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=ID_MAX).contains(&value.len()) && value.bytes().all(allowed)
}

/// Blank is Unicode White_Space and nothing else: a zero width space is not blank.
fn is_blank(value: &str) -> bool {
    value.chars().all(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_counted_and_not_bytes() {
        for one in ["a", "é", "中", "😀"] {
            assert_eq!(check(&one.repeat(63), 1, 63), Ok(()), "{one}");
            assert_eq!(check(&one.repeat(64), 1, 63), Err("must be at most 63 characters long"), "{one}");
            assert_eq!(check(&one.repeat(255), 0, 255), Ok(()), "{one}");
            assert_eq!(check(&one.repeat(256), 0, 255), Err("must be at most 255 characters long"), "{one}");
        }
    }

    #[test]
    fn a_combining_mark_counts_as_a_character_of_its_own() {
        assert_eq!(check("e\u{301}", 0, 2), Ok(()));
        assert!(check("e\u{301}", 0, 1).is_err());
    }

    #[test]
    fn an_optional_field_may_be_empty_or_blank() {
        for value in ["", " ", "\u{3000}"] {
            assert_eq!(check(value, 0, 63), Ok(()), "{value:?}");
        }
    }

    #[test]
    fn a_required_field_must_have_more_than_white_space() {
        for value in ["", " ", "\u{a0}", "\u{2003}\u{3000}", "\u{2028}"] {
            assert_eq!(check(value, 1, 63), Err(BLANK), "{value:?}");
        }
        for value in ["a", " a ", "\u{200b}"] {
            assert_eq!(check(value, 1, 63), Ok(()), "{value:?}");
        }
    }

    #[test]
    fn fewer_characters_than_the_minimum_are_refused() {
        assert!(check("a", 2, 3).is_err());
        assert_eq!(check("ab", 2, 3), Ok(()));
    }

    #[test]
    fn control_characters_are_refused_wherever_they_stand() {
        for control in ['\0', '\t', '\n', '\r', '\u{1b}', '\u{7f}', '\u{80}', '\u{85}', '\u{9f}'] {
            for value in [format!("{control}a"), format!("a{control}b"), format!("a{control}")] {
                assert_eq!(check(&value, 1, 63), Err(CONTROL), "{value:?}");
                assert_eq!(no_control_characters(&value), Err(CONTROL), "{value:?}");
            }
        }
    }

    #[test]
    fn format_characters_and_separators_are_no_control_characters() {
        for value in ["a\u{200b}b", "a\u{ad}b", "a\u{2028}b", "a\u{feff}b", "\u{e000}", ""] {
            assert_eq!(no_control_characters(value), Ok(()), "{value:?}");
        }
    }

    #[test]
    fn the_largest_maximum_does_not_overflow() {
        assert_eq!(check("a", 1, usize::MAX), Ok(()));
    }

    #[test]
    fn identifiers() {
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
