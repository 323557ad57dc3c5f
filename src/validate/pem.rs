//! PEM (RFC 7468): blocks of base64, each from a BEGIN line to an END line.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::text;

pub(super) const EMPTY: &str = "must not be empty: send a PEM block";
pub(super) const FRAME: &str =
    "must be in PEM, from a BEGIN line to the END line of the same name, with nothing around it";
pub(super) const COPIED: &str = "must be in PEM, of ASCII characters: it has a typographic dash or quotation mark, a byte order mark or \
     another invisible character, as from a copied text";
pub(super) const ESCAPED: &str = "must have real line breaks in its PEM block, not the two characters \\n";
pub(super) const BASE64: &str = "must have nothing but base64 and line breaks (LF or CRLF) between BEGIN and END";

/// The whitespace that may stand at the end of a line.
const BLANKS: [char; 3] = [' ', '\t', '\r'];

/// A block.
pub(super) struct Block<'a> {
    /// The block from its BEGIN line to its END line.
    pub(super) text: &'a str,
    /// The name in both lines.
    pub(super) label: &'a str,
    /// The text between both lines.
    body: &'a str,
}

/// Reads the blocks of a text, at least one. Nothing but whitespace may stand around them.
pub(super) fn blocks(text: &str) -> Result<Vec<Block<'_>>, &'static str> {
    let mut blocks = Vec::new();
    text::no_control_characters_in_pem(text)?;
    let mut rest = text.trim();
    loop {
        let (block, after) = next(rest).ok_or_else(|| frame_rule(rest))?;
        blocks.push(block);
        if after.is_empty() {
            return Ok(blocks);
        }
        rest = after;
    }
}

/// Reads the only block of a text. Several blocks are rejected with the rule `one`.
pub(super) fn only<'a>(text: &'a str, one: &'static str) -> Result<Block<'a>, &'static str> {
    text::no_control_characters_in_pem(text)?;
    let text = text.trim();
    match next(text) {
        Some((block, "")) => Ok(block),
        Some((_, after)) if next(after).is_some() => Err(one),
        _ => Err(frame_rule(text)),
    }
}

/// Reads the block at the start. Returns it and the text after it, without whitespace between them.
fn next(text: &str) -> Option<(Block<'_>, &str)> {
    let (label, after_label) = text.strip_prefix("-----BEGIN ")?.split_once("-----")?;
    let (body, after_body) = after_label.split_once("-----END ")?;
    let after = after_body.strip_prefix(label)?.strip_prefix("-----")?;
    let begin_is_a_line = body.trim_start_matches(BLANKS).starts_with('\n');
    let end_starts_a_line = body.ends_with('\n');
    let end_is_a_line = after.is_empty() || after.trim_start_matches(BLANKS).starts_with('\n');
    let block = Block { text: &text[..text.len() - after.len()], label, body };
    let is_framed = begin_is_a_line && end_starts_a_line && end_is_a_line && !body.contains("-----");
    is_framed.then_some((block, after.trim_start()))
}

/// Returns the rule that a text breaks that does not start with a block: what is hard to see goes first.
fn frame_rule(text: &str) -> &'static str {
    if text.is_empty() {
        EMPTY
    } else if !text.is_ascii() {
        COPIED
    } else if text.contains("\\n") {
        ESCAPED
    } else {
        FRAME
    }
}

impl Block<'_> {
    /// Decodes the base64. Lines may have any length and trailing whitespace (RFC 7468 3, the lax form), but no
    /// whitespace within them. Headers are not allowed.
    pub(super) fn decode(&self) -> Result<Vec<u8>, &'static str> {
        let mut der = Vec::new();
        self.decode_into(&mut String::new(), &mut der).map(|()| der)
    }

    /// Decodes the base64 of a secret, and leaves no copy of it.
    pub(super) fn decode_secret(&self) -> Result<Zeroizing<Vec<u8>>, &'static str> {
        let mut der = Zeroizing::default();
        self.decode_into(&mut Zeroizing::default(), &mut der).map(|()| der)
    }

    /// Decodes the base64. Both buffers are empty and get their capacity here, so that no smaller one is left behind.
    fn decode_into(&self, base64: &mut String, der: &mut Vec<u8>) -> Result<(), &'static str> {
        base64.reserve_exact(self.body.len());
        for line in self.body.split('\n') {
            base64.push_str(line.trim_end_matches(BLANKS));
        }
        der.reserve_exact(base64.len());
        STANDARD.decode_vec(base64.as_bytes(), der).map_err(|_| BASE64)
    }

    /// Returns whether the block has the header of an encrypted one (RFC 1421 4.6.1.1), as in openssl's traditional format.
    pub(super) fn has_encryption_header(&self) -> bool {
        let first = self.body.trim_start().lines().next().unwrap_or_default();
        first.starts_with("Proc-Type:") && first.contains("ENCRYPTED")
    }
}

/// Removes whitespace around a text.
pub(super) fn trim(text: &mut String) {
    text.truncate(text.trim_end().len());
    text.drain(..text.len() - text.trim_start().len());
}
