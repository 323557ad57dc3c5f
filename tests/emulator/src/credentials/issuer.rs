//! The issuer of temporary credentials, whose accounts SCM accepts until they expire.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use serde_json::{Map, Value, json};

use crate::journal::lock;
use crate::time::{milliseconds, rfc3339};
use crate::{Account, SAMPLE_DOMAIN, SAMPLE_PROJECT};

const UPPER: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
const MIXED: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What temporary credentials can access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// The projects. Requests for other projects get 403.
    pub projects: Vec<String>,
    /// The domain id of the account that the agency belongs to.
    pub domain_id: String,
}

impl Default for Rights {
    fn default() -> Self {
        Self { projects: vec![SAMPLE_PROJECT.to_owned()], domain_id: SAMPLE_DOMAIN.to_owned() }
    }
}

/// How the credentials of a response differ from the usual ones.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Issue {
    /// They are valid for this long, whatever was requested.
    Valid(Duration),
    /// They expired this long ago.
    Expired(Duration),
    /// They are those of the last response, if there was one.
    Again,
    /// Their expiration has this form.
    Format(TimeFormat),
    /// They lack a field.
    Without(Field),
    /// A field is an empty string.
    Empty(Field),
    /// A field is null.
    Null(Field),
    /// The response has no credentials.
    Nothing,
}

/// A field of credentials, whatever its name in a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The access key.
    AccessKey,
    /// The secret key.
    SecretKey,
    /// The security token.
    SecurityToken,
    /// The expiration.
    Expiration,
}

/// The form of an expiration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeFormat {
    /// RFC 3339 in UTC, with up to nine digits after the second.
    Utc(usize),
    /// RFC 3339 with up to nine digits after the second, and with an offset from UTC in minutes.
    Offset(usize, i16),
    /// A number: the milliseconds since 1970.
    Number,
    /// The same number as a string.
    NumberText,
}

impl TimeFormat {
    fn show(self, at: SystemTime) -> Value {
        match self {
            Self::Utc(digits) => rfc3339(at, digits, None).into(),
            Self::Offset(digits, minutes) => rfc3339(at, digits, Some(minutes)).into(),
            Self::Number => milliseconds(at).into(),
            Self::NumberText => milliseconds(at).to_string().into(),
        }
    }
}

/// The names that a service gives to the credentials and their fields.
pub(crate) struct Names {
    pub(crate) object: &'static str,
    pub(crate) access_key: &'static str,
    pub(crate) secret_key: &'static str,
    pub(crate) security_token: &'static str,
    pub(crate) expiration: &'static str,
}

impl Names {
    fn of(&self, field: Field) -> &'static str {
        match field {
            Field::AccessKey => self.access_key,
            Field::SecretKey => self.secret_key,
            Field::SecurityToken => self.security_token,
            Field::Expiration => self.expiration,
        }
    }
}

/// Temporary credentials. Their debug output has no secret.
#[derive(Clone)]
pub struct Issued {
    /// The account that signs with them.
    pub account: Account,
    /// When they expire.
    pub expires_at: SystemTime,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("account", &self.account).field("expires_at", &self.expires_at).finish()
    }
}

/// Issues temporary credentials, which the emulator with this issuer accepts. Clones issue for the same emulator.
#[derive(Debug, Clone, Default)]
pub struct Issuer(Arc<Mutex<Vec<Issued>>>);

impl Issuer {
    /// Returns all credentials that were issued and not revoked, the last one at the end.
    #[must_use]
    pub fn issued(&self) -> Vec<Issued> {
        lock(&self.0).clone()
    }

    /// Makes SCM reject credentials that have not expired.
    pub fn revoke(&self, access_key: &str) {
        lock(&self.0).retain(|issued| issued.account.access_key != access_key);
    }

    /// Returns a new account. The access key has 20 characters and begins with `HSTA`, the secret key has 40.
    pub(crate) fn issue(&self, rights: &Rights, expires_at: SystemTime) -> Issued {
        let account = Account {
            access_key: format!("HSTAEXAMPLE{}", random(UPPER, 9)),
            secret_key: format!("EXAMPLEtemporarySK/{}", random(MIXED, 21)),
            security_token: Some(format!("EXAMPLEsecurityTOKEN/{}==", random(MIXED, 400))),
            projects: rights.projects.clone(),
            domain_id: rights.domain_id.clone(),
        };
        let issued = Issued { account, expires_at };
        lock(&self.0).push(issued.clone());
        issued
    }

    /// Returns the account of an access key that has not expired.
    pub(crate) fn account(&self, access_key: &str, now: SystemTime) -> Result<Arc<Account>, &'static str> {
        let issued = lock(&self.0);
        match issued.iter().rev().find(|issued| issued.account.access_key == access_key) {
            None => Err("unknown access key"),
            Some(issued) if issued.expires_at <= now => Err("the temporary access key has expired"),
            Some(issued) => Ok(Arc::new(issued.account.clone())),
        }
    }
}

/// Returns random characters of an alphabet.
///
/// # Panics
/// If the system has no randomness.
pub(crate) fn random(alphabet: &[u8], length: usize) -> String {
    let mut bytes = vec![0; length];
    rand::fill(&mut bytes).expect("the system has randomness");
    bytes.iter().map(|byte| char::from(alphabet[usize::from(*byte) % alphabet.len()])).collect()
}

/// Returns the content of a response: the credentials, changed as the script wants, and the other fields.
pub(crate) fn show(issued: &Issued, names: &Names, format: TimeFormat, change: Option<&Issue>, rest: &Value) -> Value {
    let format = match change {
        Some(Issue::Format(format)) => *format,
        _ => format,
    };
    let account = &issued.account;
    let mut credentials = Map::from_iter([
        (names.access_key.to_owned(), json!(account.access_key)),
        (names.secret_key.to_owned(), json!(account.secret_key)),
        (names.security_token.to_owned(), json!(account.security_token)),
        (names.expiration.to_owned(), format.show(issued.expires_at)),
    ]);
    match change {
        Some(Issue::Without(field)) => {
            credentials.remove(names.of(*field));
        }
        Some(Issue::Empty(field)) => {
            credentials.insert(names.of(*field).to_owned(), json!(""));
        }
        Some(Issue::Null(field)) => {
            credentials.insert(names.of(*field).to_owned(), Value::Null);
        }
        _ => {}
    }
    let mut body = rest.as_object().cloned().unwrap_or_default();
    if change != Some(&Issue::Nothing) {
        body.insert(names.object.to_owned(), credentials.into());
    }
    body.into()
}
