//! The life of a certificate: its states, how time moves them, and what each allows.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use super::certificate::Certificate;

macro_rules! statuses {
    ($($name:ident = $word:literal, $meaning:literal;)*) => {
        /// The state of a certificate.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Status {
            $(#[doc = $meaning] $name,)*
        }

        impl Status {
            /// All states.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Returns the vendor's word.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word),* }
            }
        }
    };
}

statuses! {
    Paid = "PAID", "Bought; nothing is submitted.";
    Checking = "CHECKING", "In review, as older certificates say it. It does not move.";
    CheckingDomain = "CHECKING_DOMAIN", "The CA waits for the proof of the domain.";
    CheckingOrg = "CHECKING_ORG", "The CA validates the organization.";
    Issuing = "ISSUING", "The CA signs.";
    Issued = "ISSUED", "Issued.";
    CancelChecking = "CANCELCHECKING", "The application is being withdrawn.";
    Unpassed = "UNPASSED", "The CA refused the application.";
    SupplementChecking = "SUPPLEMENTCHECKING", "Issued; further domains are in review.";
    CancelSupplementing = "CANCELSUPPLEMENTING", "Issued; the further domains are being withdrawn.";
    Revoking = "REVOKING", "The revocation is in review.";
    CancelRevoking = "CANCLEREVOKING", "The revocation is being withdrawn. The spelling is the vendor's.";
    Revoked = "REVOKED", "Revoked.";
    Expired = "EXPIRED", "Expired.";
    Upload = "UPLOAD", "Imported.";
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Status {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|status| status.word() == word);
        found.copied().ok_or(format!("unknown state {word}"))
    }
}

/// How long before expiry a certificate can no longer be revoked.
const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long after payment a certificate can be returned.
const REFUND: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What an operation does to a certificate, if its state allows that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Save, or submit an application.
    Apply,
    Cancel,
    Supplement,
    ForgetPerson,
    Export,
    /// Push, batch push and deploy.
    Deploy,
    Revoke,
    Delete,
    Unsubscribe,
}

impl Certificate {
    /// Returns whether the state allows an action at a time. The states are those of the vendor's user guide.
    pub(crate) fn allows(&self, action: Action, now: SystemTime) -> bool {
        use Status::{
            CheckingDomain, CheckingOrg, Expired, Issued, Issuing, Paid, Revoked, SupplementChecking, Upload,
        };
        let is = |states: &[Status]| states.contains(&self.status);
        match action {
            Action::Apply => is(&[Paid]),
            Action::Cancel => is(&[CheckingDomain, CheckingOrg, SupplementChecking]),
            Action::Supplement => is(&[Issued]) && self.product.domain_type == "MULTI_DOMAIN",
            Action::ForgetPerson => !is(&[CheckingDomain, CheckingOrg, Issuing, SupplementChecking]),
            Action::Export => is(&[Issued, Upload, SupplementChecking]),
            Action::Deploy => is(&[Issued, Upload]),
            Action::Revoke => is(&[Issued]) && self.issue.as_ref().is_some_and(|issue| issue.not_after > now + MONTH),
            // The API deletes issued free certificates, too. Expired own certificates: not documented.
            Action::Delete if self.is_imported() => is(&[Upload, Expired]),
            Action::Delete if self.product.is_free() => is(&[Paid, Issued, Revoked, Expired]),
            Action::Delete => is(&[Issued, Revoked, Expired]),
            Action::Unsubscribe if self.product.years > 1 && self.issue.is_some() => false,
            Action::Unsubscribe => match self.status {
                Paid => now <= self.paid_at + REFUND,
                Revoked => self.since <= self.paid_at + REFUND,
                _ => false,
            },
        }
    }

    /// Moves the certificate to its state at a time. `step` is the time that each review takes.
    pub(crate) fn settle(&mut self, now: SystemTime, step: Duration) {
        while let Some((at, next)) = self.next(step) {
            if now < at {
                return;
            }
            self.enter(next, at);
        }
    }

    /// Returns the state that time brings, and when.
    fn next(&self, step: Duration) -> Option<(SystemTime, Status)> {
        let next = match self.status {
            Status::CheckingDomain if self.is_refused() => Status::Unpassed,
            Status::CheckingDomain if self.product.names_an_organization() => Status::CheckingOrg,
            Status::CheckingDomain | Status::CheckingOrg => Status::Issuing,
            Status::CancelChecking => Status::Paid,
            Status::Issuing | Status::SupplementChecking | Status::CancelSupplementing | Status::CancelRevoking => {
                Status::Issued
            }
            Status::Revoking => Status::Revoked,
            Status::Issued | Status::Upload => return Some((self.issue.as_ref()?.not_after, Status::Expired)),
            Status::Paid | Status::Checking | Status::Unpassed | Status::Revoked | Status::Expired => return None,
        };
        Some((self.since + step, next))
    }

    /// Enters a state, with what belongs to it.
    pub(crate) fn enter(&mut self, next: Status, at: SystemTime) {
        match (self.status, next) {
            (Status::CancelChecking, Status::Paid) => self.application = None,
            (Status::Issuing, Status::Issued) => self.issue(at),
            (Status::SupplementChecking, Status::Issued) => {
                let added = std::mem::take(&mut self.added);
                if let Some(application) = &mut self.application {
                    application.sans.extend(added);
                }
                self.issue(at);
            }
            (Status::CancelSupplementing, Status::Issued) => self.added.clear(),
            _ => {}
        }
        self.status = next;
        self.since = at;
        self.updated = at;
    }

    /// Whether the CA refuses the application: a domain below `.invalid`, which RFC 2606 reserves.
    fn is_refused(&self) -> bool {
        let names = self.application.iter().flat_map(|application| application.names());
        names.into_iter().any(|name| name.ends_with(".invalid"))
    }
}
