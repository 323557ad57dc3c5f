//! Generates an authority and a leaf certificate, valid or invalid on purpose.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;

/// The TLS configuration of an emulator: a leaf certificate of a new authority.
#[derive(Clone)]
pub struct Tls {
    ca_pem: String,
    config: Arc<ServerConfig>,
}

impl Tls {
    /// Generates a valid leaf for `localhost` and 127.0.0.1.
    #[must_use]
    pub fn generate() -> Self {
        Self::with_leaf(leaf(&["localhost", "127.0.0.1"]))
    }

    /// Generates an expired leaf for `localhost` and 127.0.0.1.
    #[must_use]
    pub fn generate_expired() -> Self {
        let mut params = leaf(&["localhost", "127.0.0.1"]);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        Self::with_leaf(params)
    }

    /// Generates a valid leaf for this name or address only.
    ///
    /// # Panics
    /// If `host` is not ASCII.
    #[must_use]
    pub fn generate_for(host: &str) -> Self {
        Self::with_leaf(leaf(&[host]))
    }

    /// Generates a self-signed leaf for `localhost` and 127.0.0.1. `ca_pem` returns the leaf itself.
    ///
    /// # Panics
    /// If the system has no randomness.
    #[must_use]
    pub fn generate_self_signed() -> Self {
        let leaf_key = key();
        let leaf =
            leaf(&["localhost", "127.0.0.1"]).self_signed(&leaf_key).expect("the fixed parameters can be signed");
        Self::of(leaf.pem(), &leaf, &leaf_key)
    }

    /// Returns the certificate that a client has to trust.
    #[must_use]
    pub fn ca_pem(&self) -> String {
        self.ca_pem.clone()
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    fn with_leaf(params: CertificateParams) -> Self {
        let authority = authority();
        let authority_key = key();
        let ca = authority.self_signed(&authority_key).expect("the fixed parameters can be signed");
        let leaf_key = key();
        let leaf = params
            .signed_by(&leaf_key, &Issuer::from_params(&authority, &authority_key))
            .expect("the fixed parameters can be signed");
        Self::of(ca.pem(), &leaf, &leaf_key)
    }

    fn of(ca_pem: String, leaf: &Certificate, leaf_key: &KeyPair) -> Self {
        let private = PrivateKeyDer::try_from(leaf_key.serialize_der()).expect("a generated key serializes as PKCS#8");
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider supports TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], private)
            .expect("the key belongs to the certificate");
        // The handshake fails for a client that requires HTTP/2.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { ca_pem, config: Arc::new(config) }
    }
}

/// The certificates of new connections.
pub(crate) struct Certificates {
    current: Option<Tls>,
    next: VecDeque<Tls>,
}

impl Certificates {
    pub(crate) fn new(current: Option<Tls>) -> Self {
        Self { current, next: VecDeque::new() }
    }

    pub(crate) fn replace(&mut self, tls: Tls) {
        if let Some(current) = &mut self.current {
            *current = tls;
        }
    }

    pub(crate) fn script(&mut self, tls: Tls) {
        self.next.push_back(tls);
    }

    /// Returns the configuration of the next connection, or `None` for plain text.
    pub(crate) fn next(&mut self) -> Option<Arc<ServerConfig>> {
        let current = self.current.as_ref()?.config();
        Some(self.next.pop_front().map_or(current, |scripted| scripted.config()))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// Returns a new authority that can sign, and its certificate.
pub(crate) fn issuer() -> (Issuer<'static, KeyPair>, String) {
    let (params, key) = (authority(), key());
    let pem = params.self_signed(&key).expect("the fixed parameters can be signed").pem();
    (Issuer::new(params, key), pem)
}

fn key() -> KeyPair {
    KeyPair::generate().expect("the system has randomness")
}

fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    // A unique name, so that a client that trusts another emulator's authority does not confuse the two.
    let number = RandomState::new().hash_one("authority");
    params.distinguished_name = named(&format!("SCM emulator test authority {number:016x}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf(hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let name = hosts.first().cloned().unwrap_or_default();
    let mut params = CertificateParams::new(hosts).expect("host names are ASCII");
    params.distinguished_name = named(&name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}
