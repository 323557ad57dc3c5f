//! What is known of a watched certificate.

use prost::Message as _;

use crate::{error::Error, proto::Certificate};

/// The statuses after which nothing changes any more.
const FINAL_STATUSES: [&str; 5] = ["ISSUED", "UNPASSED", "REVOKED", "EXPIRED", "UPLOAD"];

/// The last known state of a certificate.
#[derive(Default)]
pub(super) struct Latest {
    certificate: Option<Encoded>,
    /// Counts the changes that watchers get. 0 means that nothing is known yet.
    version: u64,
    /// How the watches have ended.
    end: Option<Result<(), Box<Error>>>,
}

impl Latest {
    /// Replaces the certificate. Returns whether watchers get it.
    pub(super) fn update(&mut self, certificate: &Certificate) -> bool {
        let has_changed = self.certificate.as_ref().map(Encoded::decode).is_none_or(|before| {
            before.status != certificate.status || before.domain_proofs != certificate.domain_proofs
        });
        self.version += u64::from(has_changed);
        self.certificate = Some(Encoded::new(certificate));
        has_changed
    }

    /// Ends the watches, unless they have ended.
    pub(super) fn close(&mut self, end: Result<(), Error>) {
        self.end.get_or_insert(end.map_err(Box::new));
    }

    /// Returns the certificate if it has changed after this version.
    pub(super) fn since(&self, version: u64) -> Option<Certificate> {
        self.certificate.as_ref().filter(|_| self.version != version).map(Encoded::decode)
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn end(&self) -> Option<Result<(), Error>> {
        self.end.as_ref().map(|end| end.clone().map_err(|error| *error))
    }
}

/// A certificate that waits until somebody looks at it. Its fields would take three times the memory.
struct Encoded(Box<[u8]>);

impl Encoded {
    fn new(certificate: &Certificate) -> Self {
        Self(certificate.encode_to_vec().into())
    }

    fn decode(&self) -> Certificate {
        Certificate::decode(&*self.0).expect("the bytes of a certificate")
    }
}

/// Returns whether nothing changes after this status.
pub(super) fn is_final(status: &str) -> bool {
    FINAL_STATUSES.contains(&status)
}
