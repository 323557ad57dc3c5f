//! Characters that a terminal interprets, in text that other programs have written.

/// Returns whether a terminal may interpret a character: controls, and marks that change the order of the text.
pub(super) fn is_unprintable(character: char) -> bool {
    const LINE_AND_PARAGRAPH_SEPARATOR: [char; 2] = ['\u{2028}', '\u{2029}'];
    let is_bidi_control =
        matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character.is_control() || is_bidi_control || LINE_AND_PARAGRAPH_SEPARATOR.contains(&character)
}

/// Replaces unprintable characters.
pub(super) fn printable(text: &str) -> String {
    text.replace(is_unprintable, "\u{fffd}")
}

/// Escapes unprintable characters in JSON, which has them only in texts, except for the line feeds of its layout.
pub(super) fn printable_json(json: &str) -> String {
    let mut printable = String::with_capacity(json.len());
    for character in json.chars() {
        if character != '\n' && is_unprintable(character) {
            printable.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            printable.push(character);
        }
    }
    printable
}
