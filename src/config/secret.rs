//! Credentials: redacted in `Debug`, without `Display`, wiped from memory on drop.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use super::reader::copied;

/// The credentials of a project. The parts belong together and are replaced together.
#[derive(Clone)]
pub struct Credentials {
    /// The access key id (AK). Not a secret by itself, but kept out of logs.
    pub access_key: String,
    /// The secret access key (SK), which signs requests.
    pub secret_key: SecretString,
    /// The token that is sent with temporary credentials.
    pub security_token: Option<SecretString>,
}

impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        self.access_key == other.access_key
            && self.secret_key.expose_secret() == other.secret_key.expose_secret()
            && self.security_token.as_ref().map(ExposeSecret::expose_secret)
                == other.security_token.as_ref().map(ExposeSecret::expose_secret)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials([REDACTED])")
    }
}

/// Returns a secret without trailing line ends, which editors and `echo` add. Rejects other whitespace, because the
/// vendor would respond with a 401 that does not name the cause.
pub fn printable(bytes: &[u8]) -> Result<SecretString, String> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err("begins with a byte order mark: save it without one".to_owned());
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err("is UTF-16: save it as ASCII".to_owned());
    }
    let end = bytes.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n'));
    let bytes = end.map_or(&[][..], |end| &bytes[..=end]);
    if bytes.is_empty() {
        return Err("is empty".to_owned());
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err("is only whitespace".to_owned());
    }
    match str::from_utf8(bytes) {
        Ok(text) if bytes.iter().all(u8::is_ascii_graphic) => Ok(SecretString::from(text)),
        text => {
            let kind = text.ok().and_then(copied::kind);
            let found = kind.map(|kind| format!("; it has {kind}")).unwrap_or_default();
            Err(format!("must hold printable ASCII only, without whitespace{found}"))
        }
    }
}

/// Returns a token without whitespace at both ends, as the vendor's SDKs send it. Rejects whitespace inside.
pub fn token(bytes: &[u8], max_len: usize) -> Result<SecretString, String> {
    let trimmed = bytes.trim_ascii();
    let token = printable(if trimmed.is_empty() { bytes } else { trimmed })?;
    if trimmed.len() > max_len {
        return Err(format!("holds a token of more than {max_len} bytes"));
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::{printable, token};

    #[test]
    fn whitespace_around_a_token_is_ignored() {
        for bytes in ["a.b.c", "a.b.c\n", " \t\r\na.b.c \n\n"] {
            assert_eq!(token(bytes.as_bytes(), 5).expect("the token is valid").expose_secret(), "a.b.c");
        }
        let printable_only = "must hold printable ASCII only, without whitespace";
        for (bytes, message) in [
            ("", "is empty"),
            ("\n", "is empty"),
            (" \n ", "is only whitespace"),
            ("a b", printable_only),
            ("a\nb", "must hold printable ASCII only, without whitespace; it has a control character"),
            ("\u{feff}a.b.c", "begins with a byte order mark: save it without one"),
            ("a.b.cd\n", "holds a token of more than 5 bytes"),
        ] {
            assert_eq!(token(bytes.as_bytes(), 5).expect_err("the token is invalid"), message, "{bytes:?}");
        }
    }

    #[test]
    fn trailing_line_ends_are_ignored() {
        for bytes in [&b"key"[..], b"key\n", b"key\r\n", b"key\n\r\n\n"] {
            assert_eq!(printable(bytes).expect("the secret is valid").expose_secret(), "key");
        }
    }

    #[test]
    fn invalid_secrets_are_rejected() {
        let printable_only = "must hold printable ASCII only, without whitespace";
        let table: [(&[u8], &str); 17] = [
            (b"", "is empty"),
            (b"\r\n\n", "is empty"),
            (b" \t\n", "is only whitespace"),
            (b" key", printable_only),
            (b"key ", printable_only),
            (b"one\ntwo", "must hold printable ASCII only, without whitespace; it has a control character"),
            (b"key\0", "must hold printable ASCII only, without whitespace; it has a control character"),
            ("schlüssel".as_bytes(), printable_only),
            (b"\xff\xff", printable_only),
            (b"\xff\xfek\0e\0y\0", "is UTF-16: save it as ASCII"),
            (b"\xfe\xff\0k\0e\0y", "is UTF-16: save it as ASCII"),
            (b"\xef\xbb\xbfkey\r\n", "begins with a byte order mark: save it without one"),
            (b"\xef\xbb\xbf", "begins with a byte order mark: save it without one"),
            (
                "\u{201c}key\u{201d}".as_bytes(),
                "must hold printable ASCII only, without whitespace; it has a typographic quotation mark",
            ),
            (
                "key\u{a0}".as_bytes(),
                "must hold printable ASCII only, without whitespace; it has a non-breaking or other special space",
            ),
            (
                "key\u{200b}".as_bytes(),
                "must hold printable ASCII only, without whitespace; it has an invisible character",
            ),
            (b"k\rey", "must hold printable ASCII only, without whitespace; it has a carriage return"),
        ];
        for (bytes, message) in table {
            assert_eq!(printable(bytes).expect_err("the secret is invalid"), message, "{bytes:?}");
        }
    }
}
