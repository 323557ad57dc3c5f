//! `[server.tls]`: the certificate and key of the listener, and the CA certificates of its clients.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};
use x509_parser::{parse_x509_certificate, public_key::PublicKey, time::ASN1Time};

use super::files::{self, Content, Diagnostic, in_one_line, report_each};
use super::reader::{Section, values};
use crate::clock::Clock;

/// TLS for the listener.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The files, which can be read again.
    pub files: TlsFiles,
    /// The content of the files at startup.
    pub material: TlsMaterial,
}

/// The files of `[server.tls]`.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

/// The content of the files. Compared by its digest.
#[derive(Clone)]
pub struct TlsMaterial {
    /// The certificate with its chain and private key.
    pub certified_key: Arc<CertifiedKey>,
    /// The CA certificates of the clients, or `None` if clients are not asked for a certificate.
    pub client_ca: Option<Vec<CertificateDer<'static>>>,
    digest: [u8; 32],
}

impl TlsMaterial {
    /// Returns why clients reject the listener's certificate at this time.
    fn invalid_now(&self, clock: &Clock) -> Option<&'static str> {
        let Validity { start, end } = validity(self.certified_key.cert.first()?)?;
        let now = clock.now();
        if end < now {
            Some("holds a certificate that has expired")
        } else if now < start {
            Some("holds a certificate that is not valid yet")
        } else {
            None
        }
    }
}

/// The time in which a certificate is valid.
struct Validity {
    start: SystemTime,
    end: SystemTime,
}

fn validity(certificate: &CertificateDer<'_>) -> Option<Validity> {
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    let time = |time: ASN1Time| {
        u64::try_from(time.timestamp()).ok().map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    };
    let validity = certificate.validity();
    Some(Validity {
        start: time(validity.not_before).unwrap_or(SystemTime::UNIX_EPOCH),
        end: time(validity.not_after)?,
    })
}

/// Returns the expiry of a certificate.
pub fn expiry(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    validity(certificate).map(|validity| validity.end)
}

/// Describes the key of a certificate whose private key cannot be used.
fn unsupported_key(certificate: Option<&CertificateDer<'_>>) -> String {
    let parsed = certificate.and_then(|certificate| parse_x509_certificate(certificate).ok());
    let kind = match parsed.as_ref().map(|(_, certificate)| certificate.public_key().parsed()) {
        Some(Ok(PublicKey::RSA(key))) => format!("RSA with {} bits", key.key_size()),
        Some(Ok(PublicKey::EC(_))) => "EC".to_owned(),
        Some(Ok(PublicKey::DSA(_))) => "DSA".to_owned(),
        _ => "of another kind".to_owned(),
    };
    format!(
        "holds a private key that cannot be used; expects RSA with 2048 to 8192 bits, EC on the named curve P-256, P-384 or \
         P-521, or Ed25519; the key of the certificate is {kind}"
    )
}

impl PartialEq for TlsMaterial {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl fmt::Debug for TlsMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsMaterial([REDACTED])")
    }
}

impl TlsFiles {
    /// Reads the files again.
    ///
    /// # Errors
    ///
    /// Fails with a message that names the file and never its content. A certificate that has expired or is not valid yet is
    /// an error too, because the previous one is not worse.
    pub fn read(&self, clock: &Clock) -> Result<TlsMaterial, String> {
        let (material, _) = read(self).map_err(in_one_line)?;
        match material.invalid_now(clock) {
            Some(problem) => Err(format!("{} {problem}", values::shown(&self.certificate))),
            None => Ok(material),
        }
    }
}

/// The result of reading the section.
#[derive(Default)]
pub(super) struct TlsSection {
    /// Whether the section has a key.
    pub(super) any: bool,
    /// Whether `client_ca_file` is set.
    pub(super) client_ca: bool,
    /// `None` without the section, or after a problem, which is reported.
    pub(super) tls: Option<Tls>,
}

/// The keys of the section.
const KEYS: [&str; 3] = ["cert_file", "key_file", "client_ca_file"];

/// Returns whether the section has a key, without reading the files.
pub(super) fn is_set(section: &mut Section<'_>) -> bool {
    KEYS.map(|key| section.optional(key, values::path).is_some()).contains(&true)
}

pub(super) fn section(section: &mut Section<'_>, clock: &Clock) -> TlsSection {
    let [certificate, key, client_ca] = KEYS.map(|key| section.optional(key, values::path));
    let is_set = |key: &&str| section.origin(key).is_some();
    if !KEYS.iter().any(is_set) {
        return TlsSection::default();
    }
    let has_client_ca = is_set(&"client_ca_file");
    section.expect("cert_file", "the file with the server's certificate and its chain, in PEM");
    section.expect("key_file", "the file with the certificate's private key, in PEM");
    let tls = certificate.zip(key).and_then(|(certificate, key)| {
        let files = TlsFiles { certificate, key, client_ca };
        let (material, warnings) =
            read(&files).map_err(|problems| report_each(problems, |key, text| section.problem(key, text))).ok()?;
        report_each(warnings, |key, text| section.warning(key, text));
        if let Some(problem) = material.invalid_now(clock) {
            section.warning("cert_file", problem);
        }
        Some(Tls { files, material })
    });
    TlsSection { any: true, client_ca: has_client_ca, tls }
}

/// Reads all files, even if the first is invalid. Returns the content with warnings, or problems.
fn read(files: &TlsFiles) -> Result<(TlsMaterial, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut loader = TlsLoader::default();
    let chain = loader.part("cert_file", &files.certificate, |content| files::certificates(&content.bytes));
    let key = loader.part("key_file", &files.key, |content| files::private_key(&content.bytes));
    let client_ca = files
        .client_ca
        .as_deref()
        .map(|path| loader.part("client_ca_file", path, |content| files::roots(&content.bytes)));
    if let (Some(chain), Some(key)) = (chain, key) {
        let certificate = chain.first().cloned();
        match CertifiedKey::from_der(chain, key, &default_provider()) {
            Ok(certified_key) if loader.problems.is_empty() => {
                let material = TlsMaterial {
                    certified_key: Arc::new(certified_key),
                    client_ca: client_ca.flatten(),
                    digest: loader.digest.finalize().into(),
                };
                return Ok((material, loader.warnings));
            }
            Ok(_) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                loader.problem("key_file", &files.key, "holds a key that is not the one of the certificate");
            }
            Err(_) => loader.problem("key_file", &files.key, &unsupported_key(certificate.as_ref())),
        }
    }
    Err(loader.problems)
}

/// Reads the files one by one and collects their digest, problems and warnings.
#[derive(Default)]
struct TlsLoader {
    digest: Sha256,
    problems: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

impl TlsLoader {
    fn part<T>(
        &mut self,
        key: &'static str,
        path: &Path,
        parse: impl FnOnce(&Content) -> Result<T, String>,
    ) -> Option<T> {
        let read = files::read(path, files::MAX_FILE).and_then(|content| {
            self.digest.update(Sha256::digest(&content.bytes));
            if key == "key_file" {
                self.warnings.extend(files::permission_warning(path, &content).map(|message| (key, message)));
            } else {
                self.warnings.extend(files::ignored_warning(path, &content).map(|message| (key, message)));
            }
            parse(&content)
        });
        read.map_err(|message| self.problem(key, path, &message)).ok()
    }

    fn problem(&mut self, key: &'static str, path: &Path, message: &str) {
        self.problems.push((key, format!("{} {message}", values::shown(path))));
    }
}
