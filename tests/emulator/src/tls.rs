//! Certificates made on the spot: an authority of its own and a leaf under it, good or bad on purpose.

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

/// The emulator's side of TLS: a leaf certificate under a fresh authority.
#[derive(Clone)]
pub struct Tls {
    ca_pem: String,
    config: Arc<ServerConfig>,
}

impl Tls {
    /// A valid leaf for `localhost` and 127.0.0.1.
    #[must_use]
    pub fn generate() -> Self {
        Self::with_leaf(leaf(&["localhost", "127.0.0.1"]))
    }

    /// A leaf for `localhost` and 127.0.0.1 whose time is over.
    #[must_use]
    pub fn generate_expired() -> Self {
        let mut params = leaf(&["localhost", "127.0.0.1"]);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        Self::with_leaf(params)
    }

    /// A valid leaf for this name or address and no other.
    ///
    /// # Panics
    /// When `host` is not ASCII.
    #[must_use]
    pub fn generate_for(host: &str) -> Self {
        Self::with_leaf(leaf(&[host]))
    }

    /// A leaf for `localhost` and 127.0.0.1 that no authority stands behind; its own certificate counts as that.
    ///
    /// # Panics
    /// When the system has no randomness.
    #[must_use]
    pub fn generate_self_signed() -> Self {
        let leaf_key = key();
        let leaf =
            leaf(&["localhost", "127.0.0.1"]).self_signed(&leaf_key).expect("the fixed parameters can be signed");
        Self::of(leaf.pem(), &leaf, &leaf_key)
    }

    /// The authority's certificate, which a client has to trust.
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
        let private = PrivateKeyDer::try_from(leaf_key.serialize_der()).expect("a generated key serialises as PKCS#8");
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], private)
            .expect("key and certificate were made for each other");
        // A client that insists on HTTP/2 has to notice at the handshake.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { ca_pem, config: Arc::new(config) }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("the system has randomness")
}

fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    // A name of its own, so that a client which trusts another emulator's authority does not mix them up.
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
