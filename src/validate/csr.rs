//! Certificate signing requests: PKCS#10 (RFC 2986) in a PEM block (RFC 7468).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::domain;

mod pkcs10;
mod signature;
#[cfg(test)]
mod tests;

/// The largest request in bytes, which bounds the cost of a check.
const MAX_SIZE: usize = 5_120;
/// The labels of the PEM block. Older tools write the second one (RFC 7468 7).
const LABELS: [&str; 2] = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];

const SIZE: &str = "must be at most 5,120 bytes: send the signing request alone";
const CONTROL: &str = "must not contain control characters other than line breaks and tabs";
const FRAME: &str = "must be exactly one PEM block, from its BEGIN line to the END line of the same name, \
     with nothing around it";
const COPIED: &str = "must be a PEM block of ASCII characters: it has a typographic dash or quotation mark, a byte order mark or \
     another invisible character, as from a copied text";
const ESCAPED: &str = "must have real line breaks in its PEM block, not the two characters \\n";
const LABEL: &str = "must be a PEM block CERTIFICATE REQUEST: do not send a certificate or a key";
const BASE64: &str = "must have nothing but base64 and line breaks (LF or CRLF) between BEGIN and END";
const DER: &str = "must contain a complete PKCS#10 request: it is damaged or not a request, create it again";
const TRAILING: &str = "must end with the PKCS#10 request: remove the bytes after it, or create it again";
const BER: &str = "must be in DER, without the indefinite lengths and constructed strings of BER: use another tool";
const KEY: &str = "must contain a valid public key: create the key and the request again";
const ALGORITHM: &str = "must be signed with an algorithm that fits its key, such as SHA-256 with RSA";
const SIGNATURE: &str = "must be signed with its own key: the signature does not verify, create it again";
const NAME: &str = "must have the domain as its common name or as a DNS subject alternative name";

/// Checks that a signing request is one PEM block with a PKCS#10 request that is signed with its own key and names
/// `domain` (in its ASCII form). With `None` the name is not checked. The signature takes up to a quarter of a
/// millisecond.
pub fn check(pem: &str, domain: Option<&str>) -> Result<(), &'static str> {
    if pem.len() > MAX_SIZE {
        return Err(SIZE);
    }
    let der = decode(pem)?;
    let request = pkcs10::Request::parse(&der)?;
    signature::verify(&request)?;
    match domain {
        Some(domain) if !request.names.iter().any(|name| is_same(name, domain)) => Err(NAME),
        _ => Ok(()),
    }
}

/// Decodes the PEM block. Lines may have any length and trailing whitespace (RFC 7468 3, the lax form), but no
/// whitespace within them. Headers are not allowed.
fn decode(pem: &str) -> Result<Vec<u8>, &'static str> {
    if pem.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(CONTROL);
    }
    let body = body(pem.trim())?;
    let mut base64 = String::with_capacity(body.len());
    for line in body.split('\n') {
        base64.push_str(line.trim_end_matches([' ', '\t', '\r']));
    }
    STANDARD.decode(base64).map_err(|_| BASE64)
}

/// Returns the rule that a text breaks that is not exactly one PEM block: what is hard to see goes first.
fn frame_rule(text: &str) -> &'static str {
    if !text.is_ascii() {
        COPIED
    } else if text.contains("\\n") {
        ESCAPED
    } else {
        FRAME
    }
}

/// Returns the text between the BEGIN line and the END line of the only block.
fn body(block: &str) -> Result<&str, &'static str> {
    let frame = || frame_rule(block);
    let after_begin = block.strip_prefix("-----BEGIN ").ok_or_else(frame)?;
    let (label, rest) = after_begin.split_once("-----").ok_or_else(frame)?;
    if !LABELS.contains(&label) {
        return Err(LABEL);
    }
    let before_dashes = rest.strip_suffix("-----").ok_or_else(frame)?;
    let before_label = before_dashes.strip_suffix(label).ok_or_else(frame)?;
    let body = before_label.strip_suffix("-----END ").ok_or_else(frame)?;
    let begin_is_a_line = body.trim_start_matches([' ', '\t', '\r']).starts_with('\n');
    let end_is_a_line = body.ends_with('\n');
    if !begin_is_a_line || !end_is_a_line || body.contains("-----") {
        return Err(frame());
    }
    Ok(body)
}

/// Returns whether a name in the request equals the domain, in any case, as U-labels or A-labels.
fn is_same(name: &str, domain: &str) -> bool {
    name.eq_ignore_ascii_case(domain)
        || (!name.is_ascii() && domain::to_ascii(name).is_ok_and(|ascii| ascii.eq_ignore_ascii_case(domain)))
}
