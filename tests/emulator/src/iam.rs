//! Authenticates requests, and locks an access key after too many rejections in a row.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, SystemTime};

use crate::Account;
use crate::credentials::Issuer;
use crate::http::Request;
use crate::signature::{self, Claim};

const MAX_REJECTIONS: u32 = 5;
const LOCK: Duration = Duration::from_secs(5 * 60);

/// The accounts whose signatures are valid: configured ones, and temporary ones until they expire.
pub(crate) struct Accounts {
    configured: RwLock<Vec<Arc<Account>>>,
    issuer: Issuer,
}

impl Accounts {
    pub(crate) fn new(configured: &[Account], issuer: Issuer) -> Self {
        let accounts = Self { configured: RwLock::default(), issuer };
        accounts.set(configured);
        accounts
    }

    /// Replaces the configured accounts.
    pub(crate) fn set(&self, accounts: &[Account]) {
        let accounts = accounts.iter().cloned().map(Arc::new).collect();
        *self.configured.write().expect("no panic while the lock is held") = accounts;
    }

    fn find(&self, access_key: &str, now: SystemTime) -> Result<Arc<Account>, &'static str> {
        let configured = self.configured.read().expect("no panic while the lock is held");
        match configured.iter().find(|account| account.access_key == access_key) {
            Some(account) => Ok(Arc::clone(account)),
            None => self.issuer.account(access_key, now),
        }
    }
}

/// Why a request is rejected, and the vendor's message.
#[derive(Debug)]
pub(crate) struct Rejection {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

#[derive(Debug, Clone, Copy)]
enum KeyState {
    Rejected(u32),
    LockedUntil(SystemTime),
}

/// The state of every access key whose last request was rejected, known or not.
#[derive(Debug, Default)]
pub(crate) struct Authenticator(Mutex<HashMap<String, KeyState>>);

impl Authenticator {
    /// Returns the account that signed a request.
    pub(crate) fn admit(
        &self,
        request: &Request,
        accounts: &Accounts,
        now: SystemTime,
    ) -> Result<Arc<Account>, Rejection> {
        let claim = Claim::of(request).map_err(|reason| rejection(request, None, reason))?;
        self.verify(request, &claim, accounts, now).map_err(|reason| rejection(request, Some(&claim), reason))
    }

    fn verify(
        &self,
        request: &Request,
        claim: &Claim<'_>,
        accounts: &Accounts,
        now: SystemTime,
    ) -> Result<Arc<Account>, &'static str> {
        let mut states = self.0.lock().expect("no panic while the lock is held");
        let rejections = match states.get(claim.access_key) {
            Some(KeyState::LockedUntil(end)) if now < *end => {
                return Err("the access key is locked");
            }
            Some(KeyState::Rejected(count)) => *count,
            Some(KeyState::LockedUntil(_)) | None => 0,
        };
        let result = accounts
            .find(claim.access_key, now)
            .and_then(|account| signature::verify(request, claim, &account, now).map(|()| account));
        if result.is_ok() {
            states.remove(claim.access_key);
        } else {
            let state = if rejections < MAX_REJECTIONS {
                KeyState::Rejected(rejections + 1)
            } else {
                KeyState::LockedUntil(now + LOCK)
            };
            states.insert(claim.access_key.to_owned(), state);
        }
        result
    }
}

/// Returns the vendor's message, which echoes the canonical request and the access key.
fn rejection(request: &Request, claim: Option<&Claim<'_>>, reason: &'static str) -> Rejection {
    let (signed, access_key) = claim.map_or((&[][..], ""), |claim| (&claim.signed_headers[..], claim.access_key));
    let canonical = signature::canonical_request(request, signed);
    let echo = String::from_utf8_lossy(&canonical).replace('\n', "|");
    let message = format!(
        "Incorrect IAM authentication information: verify aksk signature fail, {reason}, \
         canonical request: {echo}, access key: {access_key}"
    );
    Rejection { reason, message }
}
