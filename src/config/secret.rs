//! Credentials: redacted in `Debug`, without `Display`, wiped from memory on drop.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

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
        _ => Err("must hold printable ASCII only, without whitespace".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::printable;

    #[test]
    fn trailing_line_ends_are_ignored() {
        for bytes in [&b"key"[..], b"key\n", b"key\r\n", b"key\n\r\n\n"] {
            assert_eq!(printable(bytes).expect("the secret is valid").expose_secret(), "key");
        }
    }

    #[test]
    fn invalid_secrets_are_rejected() {
        let printable_only = "must hold printable ASCII only, without whitespace";
        let table: [(&[u8], &str); 9] = [
            (b"", "is empty"),
            (b"\r\n\n", "is empty"),
            (b" \t\n", "is only whitespace"),
            (b" key", printable_only),
            (b"key ", printable_only),
            (b"one\ntwo", printable_only),
            (b"key\0", printable_only),
            ("schlüssel".as_bytes(), printable_only),
            (b"\xff\xfe", printable_only),
        ];
        for (bytes, message) in table {
            assert_eq!(printable(bytes).expect_err("the secret is invalid"), message, "{bytes:?}");
        }
    }
}
