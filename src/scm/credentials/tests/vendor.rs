//! A model of the vendor: which pairs of keys it accepts, and when it locks an access key.

use std::{collections::HashMap, time::Duration};

use secrecy::ExposeSecret as _;
use tokio::time::Instant;

use super::AuthOutcome;
use crate::config::secret::Credentials;

/// An access key and a secret. The vendor accepts those whose numbers are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pair(pub(super) u8, pub(super) u8);

impl Pair {
    pub(super) fn credentials(self) -> Credentials {
        let Self(access_key, secret_key) = self;
        Credentials {
            access_key: format!("AK{access_key}"),
            secret_key: format!("SK{secret_key}").into(),
            security_token: None,
        }
    }
}

/// The rejections in a row and the locks, by access key.
#[derive(Debug, Default)]
pub(super) struct Vendor {
    rejections: HashMap<String, u32>,
    locked_until: HashMap<String, Instant>,
}

impl Vendor {
    /// Checks a signature, and locks the access key after more than five rejections in a row.
    pub(super) fn check(&mut self, credentials: &Credentials, now: Instant) -> AuthOutcome {
        let access_key = &credentials.access_key;
        if self.is_locked(access_key, now) {
            return AuthOutcome::Rejected;
        }
        if access_key.strip_prefix("AK") == credentials.secret_key.expose_secret().strip_prefix("SK") {
            self.rejections.remove(access_key);
            return AuthOutcome::Accepted;
        }
        self.reject(credentials, now);
        AuthOutcome::Rejected
    }

    /// Rejects a signature.
    pub(super) fn reject(&mut self, credentials: &Credentials, now: Instant) {
        let access_key = &credentials.access_key;
        let rejections = self.rejections.entry(access_key.clone()).or_default();
        *rejections += 1;
        if *rejections > 5 {
            self.rejections.remove(access_key);
            self.locked_until.insert(access_key.clone(), now + Duration::from_secs(300));
        }
    }

    pub(super) fn is_locked(&self, access_key: &str, now: Instant) -> bool {
        self.locked_until.get(access_key).is_some_and(|until| now < *until)
    }

    /// Returns the rejections in a row of all access keys together.
    #[cfg(feature = "shuttle")]
    pub(super) fn rejections(&self) -> u32 {
        self.rejections.values().sum()
    }
}
