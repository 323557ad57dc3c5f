//! Secrets: redacted in every `Debug`, without `Display`, wiped from memory when dropped.

use std::fmt;

use secrecy::SecretString;

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

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials([REDACTED])")
    }
}
