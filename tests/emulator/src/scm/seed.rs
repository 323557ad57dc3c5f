//! What an emulator begins with: certificates in a state.

use crate::{SAMPLE_DOMAIN, Status};

/// What was bought: type, brand, and the domains that it may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// For example `DV_SSL_CERT`.
    pub cert_type: String,
    /// For example `GEOTRUST`.
    pub brand: String,
    /// `SINGLE_DOMAIN`, `WILDCARD` or `MULTI_DOMAIN`.
    pub domain_type: String,
    /// The validity. 0 is the free certificate of three months.
    pub years: u32,
    /// The number of domains, wildcards included.
    pub domains: u32,
    /// How many of the domains may be wildcards.
    pub wildcards: u32,
}

impl Product {
    /// Returns a product of GeoTrust for one year: a type such as `DV_SSL_CERT`, and a domain type. `MULTI_DOMAIN` has
    /// ten domains, of which five may be wildcards.
    #[must_use]
    pub fn new(cert_type: &str, domain_type: &str) -> Self {
        let (domains, wildcards) = match domain_type {
            "MULTI_DOMAIN" => (10, 5),
            "WILDCARD" => (1, 1),
            _ => (1, 0),
        };
        Self {
            cert_type: cert_type.to_owned(),
            brand: "GEOTRUST".to_owned(),
            domain_type: domain_type.to_owned(),
            years: 1,
            domains,
            wildcards,
        }
    }

    pub(crate) fn is_free(&self) -> bool {
        self.years == 0
    }

    /// Whether the CA validates the organization, too: all but DV.
    pub(crate) fn names_an_organization(&self) -> bool {
        self.cert_type.starts_with("OV") || self.cert_type.starts_with("EV")
    }

    pub(crate) fn days(&self) -> u64 {
        if self.is_free() { 90 } else { u64::from(self.years) * 365 }
    }

    pub(crate) fn months(&self) -> u32 {
        if self.is_free() { 3 } else { self.years * 12 }
    }
}

/// A certificate that an emulator begins with. It was paid an hour before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// The id: `scs` and 13 digits.
    pub id: String,
    /// The domain id of the account that owns it.
    pub owner: String,
    /// The state.
    pub status: Status,
    /// What was bought. A certificate with [`Status::Upload`] was imported instead.
    pub product: Product,
    /// The domain of its application, if the state has one.
    pub domain: String,
    /// The further domains of its application.
    pub sans: Vec<String>,
}

impl Seed {
    /// Returns a certificate of the sample account: paid, DV, multi-domain.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            owner: SAMPLE_DOMAIN.to_owned(),
            status: Status::Paid,
            product: Product::new("DV_SSL_CERT", "MULTI_DOMAIN"),
            domain: "www.example.com".to_owned(),
            sans: Vec::new(),
        }
    }

    /// Sets the state.
    #[must_use]
    pub fn status(self, status: Status) -> Self {
        Self { status, ..self }
    }

    /// Sets the product.
    #[must_use]
    pub fn product(self, product: Product) -> Self {
        Self { product, ..self }
    }
}
