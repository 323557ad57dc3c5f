//! The emulated CA: issues certificates, and generates keys and CSRs.

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, RsaKeySize, date_time_ymd};

use super::x509::{CsrFacts, fingerprint};
use crate::tls;

/// The CA that issues all certificates of this process, and its certificate.
static AUTHORITY: LazyLock<(Issuer<'static, KeyPair>, String)> = LazyLock::new(tls::issuer);

/// The key of a certificate.
#[derive(Debug, Clone)]
pub(crate) enum Key {
    /// A new key of this algorithm.
    Generated(String),
    /// The key of a CSR.
    Csr(String),
}

impl Default for Key {
    fn default() -> Self {
        Self::Generated("RSA_2048".to_owned())
    }
}

/// The PEM texts of a certificate, and what they say.
pub(crate) struct Files {
    pub(crate) certificate: String,
    pub(crate) chain: String,
    /// Not known for a certificate from the applicant's own CSR.
    pub(crate) private_key: Option<String>,
    pub(crate) enc_certificate: Option<String>,
    pub(crate) enc_private_key: Option<String>,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    pub(crate) signature_algorithm: &'static str,
    /// SHA-1 of the certificate, in upper-case hex.
    pub(crate) fingerprint: String,
}

impl Files {
    /// The signature algorithm of this CA.
    pub(crate) const SIGNATURE_ALGORITHM: &str = "SHA256withECDSA";

    /// Issues a certificate for these names.
    pub(crate) fn issue(names: &[String], key: &Key, not_before: SystemTime, not_after: SystemTime) -> Self {
        const CHECKED: &str = "names and key were checked with the application";
        let mut params = CertificateParams::new(names).expect(CHECKED);
        params.distinguished_name.push(DnType::CommonName, names.first().cloned().unwrap_or_default());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let since_1970 = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default();
        params.not_before = date_time_ymd(1970, 1, 1) + since_1970(not_before);
        params.not_after = date_time_ymd(1970, 1, 1) + since_1970(not_after);
        let (issuer, chain) = &*AUTHORITY;
        let (certificate, private_key) = match key {
            Key::Generated(algorithm) => {
                let pair = generate(algorithm).expect(CHECKED);
                (params.signed_by(&pair, issuer), Some(pair.serialize_pem()))
            }
            Key::Csr(pem) => (params.signed_by(&CsrFacts::read(pem).expect(CHECKED).key, issuer), None),
        };
        let certificate = certificate.expect(CHECKED);
        Self {
            fingerprint: fingerprint(certificate.der()),
            certificate: certificate.pem(),
            chain: chain.clone(),
            private_key,
            enc_certificate: None,
            enc_private_key: None,
            not_before,
            not_after,
            signature_algorithm: Self::SIGNATURE_ALGORITHM,
        }
    }
}

/// Generates a key of one of the vendor's algorithms. Returns `None` for SM2, which the cryptographic library lacks,
/// and for unknown algorithms.
pub(crate) fn generate(algorithm: &str) -> Option<KeyPair> {
    let rsa = |size| KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).ok();
    match algorithm {
        "RSA_2048" => rsa(RsaKeySize::_2048),
        "RSA_3072" => rsa(RsaKeySize::_3072),
        "RSA_4096" => rsa(RsaKeySize::_4096),
        "EC_P256" => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).ok(),
        "EC_P384" => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).ok(),
        _ => None,
    }
}

/// Whether [`generate`] has an algorithm.
pub(crate) fn can_generate(algorithm: &str) -> bool {
    matches!(algorithm, "RSA_2048" | "RSA_3072" | "RSA_4096" | "EC_P256" | "EC_P384")
}

/// Generates a key, and a CSR for these names, and returns the PEM of both.
pub(crate) fn generate_csr(names: &[String], algorithm: &str) -> Option<(String, String)> {
    let key = generate(algorithm)?;
    let mut params = CertificateParams::new(names).ok()?;
    params.distinguished_name.push(DnType::CommonName, names.first()?.clone());
    let csr = params.serialize_request(&key).ok()?.pem().ok()?;
    Some((csr, key.serialize_pem()))
}
