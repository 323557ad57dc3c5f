//! The door: who signed a request, and the lock-out of a key after too many refusals in a row.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use crate::Account;
use crate::http::Request;
use crate::signature::{self, Claim};

const TOLERATED_REFUSALS: u32 = 5;
const LOCK: Duration = Duration::from_secs(5 * 60);

/// Why a request is not let in, and what the vendor's text echoes.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

#[derive(Debug, Clone, Copy)]
enum Standing {
    Refused(u32),
    LockedUntil(SystemTime),
}

/// The standing of every access key that was refused lately, known or not.
#[derive(Debug, Default)]
pub(crate) struct Door(Mutex<HashMap<String, Standing>>);

impl Door {
    /// Lets a request in as the account that signed it.
    pub(crate) fn admit<'a>(
        &self,
        request: &Request,
        accounts: &'a [Account],
        now: SystemTime,
    ) -> Result<&'a Account, Refusal> {
        let claim = Claim::of(request).map_err(|reason| refusal(request, None, reason))?;
        self.judge(request, &claim, accounts, now).map_err(|reason| refusal(request, Some(&claim), reason))
    }

    fn judge<'a>(
        &self,
        request: &Request,
        claim: &Claim<'_>,
        accounts: &'a [Account],
        now: SystemTime,
    ) -> Result<&'a Account, &'static str> {
        let mut standings = self.0.lock().expect("no holder of this lock panics");
        let refused = match standings.get(claim.access_key) {
            Some(Standing::LockedUntil(end)) if now < *end => {
                return Err("the access key is locked");
            }
            Some(Standing::Refused(count)) => *count,
            Some(Standing::LockedUntil(_)) | None => 0,
        };
        let verdict = signature::verify(request, claim, accounts, now);
        if verdict.is_ok() {
            standings.remove(claim.access_key);
        } else {
            let standing = if refused < TOLERATED_REFUSALS {
                Standing::Refused(refused + 1)
            } else {
                Standing::LockedUntil(now + LOCK)
            };
            standings.insert(claim.access_key.to_owned(), standing);
        }
        verdict
    }
}

/// The vendor's text: it echoes the canonical request and the access key, to everybody's peril.
fn refusal(request: &Request, claim: Option<&Claim<'_>>, reason: &'static str) -> Refusal {
    let (signed, access_key) = claim.map_or((&[][..], ""), |claim| (&claim.signed_headers[..], claim.access_key));
    let canonical = signature::canonical_request(request, signed);
    let echo = String::from_utf8_lossy(&canonical).replace('\n', "|");
    let message = format!(
        "Incorrect IAM authentication information: verify aksk signature fail, {reason}, \
         canonical request: {echo}, access key: {access_key}"
    );
    Refusal { reason, message }
}
