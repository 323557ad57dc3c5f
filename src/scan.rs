//! Looks for bytes of a kind in a text, eight at a time.
//!
//! The texts of a call are short: a loop over bytes takes eight instructions a byte, and the compiler's vectors begin at 16
//! bytes.

/// Eight bytes of a text.
#[derive(Clone, Copy)]
pub(crate) struct Word(u64);

const HIGH_BITS: u64 = splat(0x80);

const fn splat(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

impl Word {
    /// Returns whether a byte is outside ASCII.
    pub(crate) fn has_non_ascii(self) -> bool {
        self.0 & HIGH_BITS != 0
    }

    /// Returns whether a byte is less than `limit`, which is at most 0x80.
    pub(crate) fn has_less(self, limit: u8) -> bool {
        self.0.wrapping_sub(splat(limit)) & !self.0 & HIGH_BITS != 0
    }

    /// Returns whether a byte has this value.
    pub(crate) fn has(self, byte: u8) -> bool {
        Self(self.0 ^ splat(byte)).has_less(1)
    }
}

/// Returns whether `test` is true for any eight bytes of a text. A text with fewer is filled with spaces.
pub(crate) fn any(text: &str, test: impl Fn(Word) -> bool) -> bool {
    let bytes = text.as_bytes();
    let test = |word: &[u8; 8]| test(Word(u64::from_ne_bytes(*word)));
    match bytes.last_chunk() {
        // The last eight bytes overlap with those before.
        Some(last) => bytes.as_chunks().0.iter().any(test) || test(last),
        None => {
            let mut word = [b' '; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            test(&word)
        }
    }
}

/// A set of bytes, whose look-up has no branch.
pub(crate) struct ByteSet([bool; 256]);

impl ByteSet {
    /// Returns the letters and digits of ASCII, and these bytes.
    pub(crate) const fn alphanumeric_and(others: &[u8]) -> Self {
        let mut set = [false; 256];
        let mut byte = 0;
        while byte < set.len() {
            set[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let mut other = 0;
        while other < others.len() {
            set[others[other] as usize] = true;
            other += 1;
        }
        Self(set)
    }

    /// Returns whether all bytes of a text are in the set.
    pub(crate) fn has_all(&self, text: &str) -> bool {
        text.bytes().all(|byte| self.0[usize::from(byte)])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{ByteSet, Word, any};

    #[test]
    fn a_set_has_the_letters_the_digits_and_its_other_bytes() {
        let set = ByteSet::alphanumeric_and(b"-.");
        for c in (0..=0xff).map(char::from) {
            let is_member = c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
            assert_eq!(set.has_all(&format!("a{c}")), is_member, "{c:?}");
        }
    }

    proptest! {
        #[test]
        fn words_are_tested_as_bytes_are(text in "[\\x00-\\x7f\u{80}-\u{a0}é中]{0,40}", byte in 0_u8.., limit in 1_u8..=0x20) {
            prop_assert_eq!(any(&text, Word::has_non_ascii), !text.is_ascii());
            prop_assert_eq!(any(&text, |word| word.has_less(limit)), text.bytes().any(|found| found < limit));
            let is_filled = byte == b' ' && text.len() < 8;
            prop_assert_eq!(any(&text, |word| word.has(byte)), is_filled || text.bytes().any(|found| found == byte));
        }
    }

    #[test]
    fn every_position_of_every_length_is_tested() {
        for length in 0..40 {
            let text = "a".repeat(length);
            assert!(!any(&text, |word| word.has(b'b')), "{length}");
            for at in 0..length {
                let mut text = text.clone();
                text.replace_range(at..=at, "b");
                assert!(any(&text, |word| word.has(b'b')), "{text}");
            }
        }
    }
}
