//! Reads the certificates, CSRs and keys of callers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use rcgen::{KeyPair, PublicKeyData, SignatureAlgorithm};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::Oid;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};
use x509_parser::time::ASN1Time;
use x509_parser::x509::SubjectPublicKeyInfo;

/// What a caller's CSR says.
pub(crate) struct CsrFacts {
    /// The common name and the alternative names.
    pub(crate) names: Vec<String>,
    pub(crate) key: PublicKey,
}

impl CsrFacts {
    /// Reads a PEM text. Returns `None` if it is no CSR, or has a key that the CA does not certify.
    pub(crate) fn read(pem: &str) -> Option<Self> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
        if !pem.label.ends_with("CERTIFICATE REQUEST") {
            return None;
        }
        let (_, csr) = X509CertificationRequest::from_der(&pem.contents).ok()?;
        let info = &csr.certification_request_info;
        let extensions = csr.requested_extensions().into_iter().flatten();
        let names = names(&info.subject, extensions);
        let key = PublicKey::read(&info.subject_pki)?;
        Some(Self { names, key })
    }

    /// Whether the CSR is for this domain.
    pub(crate) fn is_for(&self, domain: &str) -> bool {
        self.names.iter().any(|name| name.eq_ignore_ascii_case(domain))
    }
}

/// A public key that the CA certifies.
pub(crate) struct PublicKey {
    algorithm: &'static SignatureAlgorithm,
    bytes: Vec<u8>,
}

impl PublicKey {
    fn read(key: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        let curve = key.algorithm.parameters.as_ref().and_then(|any| Oid::try_from(any).ok());
        let curve = curve.map(|oid| oid.to_id_string()).unwrap_or_default();
        let algorithm = match (key.algorithm.algorithm.to_id_string().as_str(), curve.as_str()) {
            ("1.2.840.113549.1.1.1", _) => &rcgen::PKCS_RSA_SHA256,
            ("1.2.840.10045.2.1", "1.2.840.10045.3.1.7") => &rcgen::PKCS_ECDSA_P256_SHA256,
            ("1.2.840.10045.2.1", "1.3.132.0.34") => &rcgen::PKCS_ECDSA_P384_SHA384,
            ("1.3.101.112", _) => &rcgen::PKCS_ED25519,
            _ => return None,
        };
        Some(Self { algorithm, bytes: key.subject_public_key.data.to_vec() })
    }

    /// Returns the vendor's word for the algorithm.
    pub(crate) fn algorithm_name(&self) -> &'static str {
        match (self.algorithm, self.bytes.len()) {
            (algorithm, _) if *algorithm == rcgen::PKCS_ECDSA_P256_SHA256 => "EC_P256",
            (algorithm, _) if *algorithm == rcgen::PKCS_ECDSA_P384_SHA384 => "EC_P384",
            (algorithm, _) if *algorithm == rcgen::PKCS_ED25519 => "",
            (_, 500..) => "RSA_4096",
            (_, 380..) => "RSA_3072",
            _ => "RSA_2048",
        }
    }

    /// Whether a private key belongs to this one. Returns `None` if the cryptographic library cannot read it.
    pub(crate) fn belongs_to(&self, private_key: &str) -> Option<bool> {
        KeyPair::from_pem(private_key).ok().map(|pair| pair.public_key_raw() == self.bytes)
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

/// What a caller's certificate says.
pub(crate) struct CertificateFacts {
    pub(crate) names: Vec<String>,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    pub(crate) issuer: Vec<u8>,
    pub(crate) subject: Vec<u8>,
    pub(crate) signature_algorithm: &'static str,
    pub(crate) fingerprint: String,
    /// `None` if the CA does not certify keys of this kind.
    pub(crate) key: Option<PublicKey>,
}

impl CertificateFacts {
    /// Reads the certificates of a PEM text. Returns `None` if one cannot be read.
    pub(crate) fn read(pem: &str) -> Option<Vec<Self>> {
        Pem::iter_from_buffer(pem.as_bytes()).map(|pem| Self::of(&pem.ok()?)).collect()
    }

    fn of(pem: &Pem) -> Option<Self> {
        if pem.label != "CERTIFICATE" {
            return None;
        }
        let (_, certificate) = X509Certificate::from_der(&pem.contents).ok()?;
        let extensions = certificate.extensions().iter().map(|extension| extension.parsed_extension());
        Some(Self {
            names: names(certificate.subject(), extensions),
            not_before: time(certificate.validity().not_before),
            not_after: time(certificate.validity().not_after),
            issuer: certificate.issuer().as_raw().to_vec(),
            subject: certificate.subject().as_raw().to_vec(),
            signature_algorithm: match certificate.signature_algorithm.algorithm.to_id_string().as_str() {
                "1.2.840.113549.1.1.11" => "SHA256withRSA",
                "1.2.840.10045.4.3.2" => "SHA256withECDSA",
                "1.2.840.10045.4.3.3" => "SHA384withECDSA",
                _ => "",
            },
            fingerprint: fingerprint(&pem.contents),
            key: PublicKey::read(certificate.public_key()),
        })
    }
}

/// Whether a PEM text is a private key without a passphrase.
pub(crate) fn is_private_key(pem: &str) -> bool {
    let parsed = x509_parser::pem::parse_x509_pem(pem.as_bytes());
    parsed.is_ok_and(|(_, parsed)| parsed.label.ends_with("PRIVATE KEY")) && !pem.contains("ENCRYPTED")
}

/// Returns the common name and the alternative names, each once.
fn names<'a>(subject: &X509Name<'_>, extensions: impl Iterator<Item = &'a ParsedExtension<'a>>) -> Vec<String> {
    let common = subject.iter_common_name().filter_map(|name| name.as_str().ok()).map(str::to_owned);
    let mut names: Vec<String> = common.take(1).collect();
    for extension in extensions {
        let ParsedExtension::SubjectAlternativeName(list) = extension else {
            continue;
        };
        for name in &list.general_names {
            let name = match name {
                GeneralName::DNSName(name) => (*name).to_owned(),
                GeneralName::IPAddress([a, b, c, d]) => format!("{a}.{b}.{c}.{d}"),
                _ => continue,
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

fn time(at: ASN1Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(at.timestamp().try_into().unwrap_or_default())
}

/// Returns the SHA-1 of a certificate in upper-case hex.
pub(crate) fn fingerprint(der: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, der);
    hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
}
