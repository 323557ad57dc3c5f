//! The files with tokens that services exchange for temporary credentials.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};

use super::jwt::{self, Claims};
use crate::clock::{Clock, seconds_between};
use crate::config::files::{self, MAX_SECRET, SecretFile};
use crate::config::reader::Section;
use crate::config::secret;

/// The longest OIDC token that STS accepts, in bytes.
const MAX_OIDC_TOKEN: usize = 20_000;

/// A file with a token, which its owner replaces before the token expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFile {
    path: PathBuf,
    max_len: usize,
}

impl TokenFile {
    /// Returns a file with a token of any length that a secret may have.
    pub fn new(path: PathBuf) -> Self {
        Self { path, max_len: MAX_SECRET as usize }
    }

    /// Returns a file with an OIDC token, whose length STS limits.
    pub fn of_oidc(path: PathBuf) -> Self {
        Self { path, max_len: MAX_OIDC_TOKEN }
    }

    /// Reads the token, without whitespace at its ends.
    ///
    /// # Errors
    ///
    /// Fails with a message that names the file and never its content.
    pub fn read(&self) -> Result<SecretString, String> {
        self.read_file().map(|file| file.text)
    }

    fn read_file(&self) -> Result<SecretFile, String> {
        files::read_secret(&self.path, |bytes| secret::token(bytes, self.max_len))
    }
}

/// What a token says about itself when it is read at the start. Holds nothing that is a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct Token {
    /// `None` if the token is no JWT.
    claims: Option<Claims>,
    /// Seconds since 1970.
    read_at: i64,
}

/// Reads the token of a file at the start. Reports an unusable file as a problem of the key, and a token that a service
/// would reject as a warning, because the token may be replaced before its first use.
pub(super) fn inspect(section: &mut Section<'_>, key: &'static str, file: &TokenFile, clock: &Clock) -> Option<Token> {
    let read = file.read_file().map_err(|message| section.problem(key, message)).ok()?;
    let read_at = seconds_between(SystemTime::UNIX_EPOCH, clock.now());
    let token = Token { claims: jwt::parse(read.text.expose_secret()), read_at };
    for warning in read.warning.into_iter().chain(token.rejection().map(str::to_owned)) {
        section.warning(key, &warning);
    }
    Some(token)
}

impl Token {
    /// Returns why a service would reject the token.
    fn rejection(&self) -> Option<&'static str> {
        let Some(claims) = &self.claims else { return Some("holds a token that is no JWT") };
        if claims.expires_at.is_some_and(|time| self.seconds_until(time) <= 0) {
            Some("holds a token that has expired")
        } else if claims.not_before.is_some_and(|time| self.seconds_until(time) > 0) {
            Some("holds a token that is not valid yet")
        } else {
            None
        }
    }

    fn seconds_until(&self, time: Timestamp) -> i64 {
        time.as_second().saturating_sub(self.read_at)
    }

    /// Describes the token in one line: its issuer, audiences and subject, and its expiry.
    pub(in crate::config) fn description(&self) -> String {
        let Some(claims) = &self.claims else { return "is no JWT".to_owned() };
        let validity = claims.expires_at.map_or_else(|| "no expiry".to_owned(), |time| self.validity(time));
        format!("has {}, {validity} (not verified)", claims.identity())
    }

    fn validity(&self, expires_at: Timestamp) -> String {
        let seconds = self.seconds_until(expires_at);
        let duration = humantime::format_duration(Duration::from_secs(seconds.unsigned_abs()));
        if seconds > 0 {
            format!("expires at {expires_at}, {duration} after it was read")
        } else {
            format!("expired at {expires_at}, {duration} before it was read")
        }
    }
}
