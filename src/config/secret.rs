//! Secrets: redacted in every `Debug`, without `Display`, wiped from memory when dropped.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// One project's key at the vendor. Its parts belong together and are only ever replaced together.
#[derive(Clone)]
pub struct Credentials {
    /// The access key id (AK). It names the key and is no secret by itself, but is kept out of logs all the same.
    pub access_key: String,
    /// The secret access key (SK), which signs.
    pub secret_key: SecretString,
    /// The token that temporary keys must send along.
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

/// A secret without the line ends that editors and `echo` leave behind. Nothing else is forgiven: a blank in a key is
/// a slip that the vendor would answer with a puzzling 401.
pub fn printable(bytes: &[u8]) -> Result<SecretString, String> {
    let end = bytes.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n'));
    let bytes = end.map_or(&[][..], |end| &bytes[..=end]);
    if bytes.is_empty() {
        return Err("is empty".to_owned());
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err("is blank".to_owned());
    }
    match str::from_utf8(bytes) {
        Ok(text) if bytes.iter().all(u8::is_ascii_graphic) => Ok(SecretString::from(text)),
        _ => Err("must hold printable ASCII only, without blanks".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::printable;

    #[test]
    fn trailing_line_ends_are_no_part_of_a_secret() {
        for bytes in [&b"key"[..], b"key\n", b"key\r\n", b"key\n\r\n\n"] {
            assert_eq!(printable(bytes).expect("a secret").expose_secret(), "key");
        }
    }

    #[test]
    fn empty_blank_and_unprintable_secrets_are_refused() {
        let printable_only = "must hold printable ASCII only, without blanks";
        let table: [(&[u8], &str); 9] = [
            (b"", "is empty"),
            (b"\r\n\n", "is empty"),
            (b" \t\n", "is blank"),
            (b" key", printable_only),
            (b"key ", printable_only),
            (b"one\ntwo", printable_only),
            (b"key\0", printable_only),
            ("schlüssel".as_bytes(), printable_only),
            (b"\xff\xfe", printable_only),
        ];
        for (bytes, message) in table {
            assert_eq!(printable(bytes).expect_err("no secret"), message, "{bytes:?}");
        }
    }
}
