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
