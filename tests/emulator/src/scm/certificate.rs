//! A certificate: what was bought, applied for and issued, and where it is used.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::life::Status;
use super::pki::{Files, Key};
use super::seed::{Product, Seed};

/// How long ago a certificate that the emulator begins with was paid, and issued.
const SEED_AGE: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A certificate. It has no `Debug`, because it holds personal data.
pub(crate) struct Certificate {
    pub(crate) id: String,
    /// The domain id of its account.
    pub(crate) owner: String,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) enterprise_project_id: String,
    pub(crate) product: Product,
    /// Empty for an imported certificate.
    pub(crate) order_id: String,
    pub(crate) paid_at: SystemTime,
    pub(crate) status: Status,
    /// When the state was entered.
    pub(crate) since: SystemTime,
    /// When anything was changed.
    pub(crate) updated: SystemTime,
    /// The project and the content of the last save or application.
    pub(crate) draft: Option<(String, Value)>,
    pub(crate) application: Option<Application>,
    /// The further domains in review.
    pub(crate) added: Vec<String>,
    pub(crate) issue: Option<Issue>,
    pub(crate) revoke_reason: Option<String>,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) pushes: Vec<Push>,
    pub(crate) deployments: Vec<Deployment>,
    pub(crate) notices: BTreeSet<String>,
}

/// What the CA was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Application {
    pub(crate) domain: String,
    pub(crate) sans: Vec<String>,
    /// The applicant's own CSR.
    pub(crate) csr: Option<String>,
    pub(crate) key_algorithm: String,
    pub(crate) method: String,
    pub(crate) auto_dns: bool,
}

impl Application {
    pub(crate) fn names(&self) -> Vec<String> {
        std::iter::once(&self.domain).chain(&self.sans).cloned().collect()
    }

    /// Whether the domain is proven by an e-mail to its administrator.
    pub(crate) fn is_by_email(&self) -> bool {
        self.method == "EMAIL"
    }
}

/// An issued or imported certificate.
pub(crate) struct Issue {
    pub(crate) at: SystemTime,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    names: Vec<String>,
    key: Key,
    files: Option<Files>,
}

impl Issue {
    /// Returns the PEM texts, which are generated at their first use.
    pub(crate) fn files(&mut self) -> &Files {
        let Self { names, key, not_before, not_after, .. } = self;
        self.files.get_or_insert_with(|| Files::issue(names, key, *not_before, *not_after))
    }

    pub(crate) fn signature_algorithm(&self) -> &'static str {
        self.files.as_ref().map_or(Files::SIGNATURE_ALGORITHM, |files| files.signature_algorithm)
    }

    /// Whether the certificate is this one. One whose texts nobody has seen yet is not.
    pub(crate) fn has_fingerprint(&self, fingerprint: &str) -> bool {
        self.files.as_ref().is_some_and(|files| files.fingerprint == fingerprint)
    }
}

/// A push of a certificate to another service.
#[derive(Debug, Clone)]
pub(crate) struct Push {
    pub(crate) at: SystemTime,
    pub(crate) project: String,
    pub(crate) service: String,
}

/// A resource of another service that uses the certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Deployment {
    pub(crate) service: String,
    pub(crate) region: String,
    pub(crate) resource_id: String,
    pub(crate) resource_name: String,
}

impl Certificate {
    /// Returns a paid certificate.
    pub(crate) fn paid(id: &str, owner: &str, order_id: &str, product: Product, at: SystemTime) -> Self {
        Self {
            id: id.to_owned(),
            owner: owner.to_owned(),
            name: format!("scm-{}", id.trim_start_matches("scs")),
            description: String::new(),
            enterprise_project_id: "0".to_owned(),
            product,
            order_id: order_id.to_owned(),
            paid_at: at,
            status: Status::Paid,
            since: at,
            updated: at,
            draft: None,
            application: None,
            added: Vec::new(),
            issue: None,
            revoke_reason: None,
            tags: BTreeMap::new(),
            pushes: Vec::new(),
            deployments: Vec::new(),
            notices: BTreeSet::new(),
        }
    }

    /// Returns an imported certificate.
    pub(crate) fn imported(id: &str, owner: &str, names: &[String], files: Files, at: SystemTime) -> Self {
        let mut certificate = Self::paid(id, owner, "", own(names), at);
        let (not_before, not_after) = (files.not_before, files.not_after);
        certificate.application = Some(application(names));
        certificate.issue =
            Some(Issue { at, not_before, not_after, names: names.to_vec(), key: Key::default(), files: Some(files) });
        certificate.status = Status::Upload;
        certificate
    }

    /// Returns a certificate in the state of a seed.
    pub(crate) fn seeded(seed: &Seed, now: SystemTime) -> Self {
        let paid_at = now - SEED_AGE;
        let mut certificate = Self::paid(&seed.id, &seed.owner, "CS2208090000SEED", seed.product.clone(), paid_at);
        let names: Vec<String> = std::iter::once(&seed.domain).chain(&seed.sans).cloned().collect();
        if seed.status != Status::Paid {
            certificate.application = Some(application(&names));
        }
        match seed.status {
            Status::Upload => {
                certificate.order_id.clear();
                certificate.product = own(&names);
                certificate.issue(now - DAY);
            }
            Status::Expired => certificate.issue(now - certificate.validity() - DAY),
            Status::Issued
            | Status::SupplementChecking
            | Status::CancelSupplementing
            | Status::Revoking
            | Status::CancelRevoking
            | Status::Revoked => certificate.issue(paid_at),
            _ => {}
        }
        if matches!(seed.status, Status::Revoking | Status::CancelRevoking | Status::Revoked) {
            certificate.revoke_reason = Some("no longer used".to_owned());
        }
        certificate.status = seed.status;
        certificate.since = now;
        certificate.updated = now;
        certificate
    }

    pub(crate) fn is_imported(&self) -> bool {
        self.order_id.is_empty()
    }

    /// Whether the private key is not SCM's, so that the certificate cannot be pushed.
    pub(crate) fn has_own_csr(&self) -> bool {
        self.application.as_ref().is_some_and(|application| application.csr.is_some())
    }

    /// Whether a certificate can be pushed and deployed.
    pub(crate) fn is_deployable(&self) -> bool {
        matches!(self.status, Status::Issued | Status::Upload) && !self.has_own_csr()
    }

    /// Issues the certificate for the names of the application.
    pub(crate) fn issue(&mut self, at: SystemTime) {
        let Some(application) = &self.application else {
            return;
        };
        let key = match &application.csr {
            Some(csr) => Key::Csr(csr.clone()),
            None => Key::Generated(application.key_algorithm.clone()),
        };
        let not_after = at + self.validity();
        self.issue = Some(Issue { at, not_before: at, not_after, names: application.names(), key, files: None });
    }

    fn validity(&self) -> Duration {
        DAY * u32::try_from(self.product.days()).unwrap_or(u32::MAX)
    }
}

/// Returns the product that stands for an imported certificate.
fn own(names: &[String]) -> Product {
    let domain_type = match names {
        [name] if name.starts_with("*.") => "WILDCARD",
        [_] => "SINGLE_DOMAIN",
        _ => "MULTI_DOMAIN",
    };
    let count = |names: usize| u32::try_from(names).unwrap_or(u32::MAX);
    Product {
        cert_type: String::new(),
        brand: String::new(),
        domains: count(names.len()),
        wildcards: count(names.iter().filter(|name| name.starts_with("*.")).count()),
        ..Product::new("", domain_type)
    }
}

/// Returns the application of a seed. Its key is the kind that is generated fastest.
fn application(names: &[String]) -> Application {
    Application {
        domain: names.first().cloned().unwrap_or_default(),
        sans: names.get(1..).unwrap_or_default().to_vec(),
        csr: None,
        key_algorithm: "EC_P256".to_owned(),
        method: "DNS".to_owned(),
        auto_dns: false,
    }
}
