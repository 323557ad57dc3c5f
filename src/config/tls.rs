//! `[server.tls]`: the listener's certificate and key, and the authorities of its clients.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};

use x509_parser::parse_x509_certificate;

use super::credentials::{self, Diagnostic, in_one_line, note};
use super::files::{self, Content};
use super::reader::Section;
use super::values;
use crate::clock::Clock;

/// TLS for the listener.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Where it was read, and is read again.
    pub files: TlsFiles,
    /// What was read at the start.
    pub material: TlsMaterial,
}

/// The files of `[server.tls]`.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

/// What the files hold. Equal if their contents are.
#[derive(Clone)]
pub struct TlsMaterial {
    /// The certificate with its chain, and its key.
    pub certified_key: Arc<CertifiedKey>,
    /// The authorities whose certificates clients show; `None` if they are not asked for one.
    pub client_ca: Option<Vec<CertificateDer<'static>>>,
    digest: [u8; 32],
}

const EXPIRED: &str = "holds a certificate that has expired";

impl TlsMaterial {
    /// Whether clients refuse the listener's certificate for its date.
    fn has_expired(&self, clock: &Clock) -> bool {
        let expiry = self.certified_key.cert.first().and_then(expiry);
        expiry.is_some_and(|expiry| expiry < clock.now())
    }
}

/// When a certificate expires.
pub fn expiry(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
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
    /// Reads the files again. A problem names the file at fault and never its content.
    ///
    /// # Errors
    ///
    /// What is wrong with the files: then what was read before stays good, better than a certificate that has expired.
    pub fn read(&self, clock: &Clock) -> Result<TlsMaterial, String> {
        let (material, _) = read(self).map_err(in_one_line)?;
        match material.has_expired(clock) {
            false => Ok(material),
            true => Err(format!("{} {EXPIRED}", values::shown(&self.certificate))),
        }
    }
}

/// What the section says: `tls` is `None` without one, or after a problem, which is noted.
#[derive(Default)]
pub(super) struct TlsSection {
    pub(super) any: bool,
    pub(super) client_ca: bool,
    pub(super) tls: Option<Tls>,
}

pub(super) fn section(section: &mut Section<'_>, clock: &Clock) -> TlsSection {
    let certificate = section.optional("cert_file", values::path);
    let key = section.optional("key_file", values::path);
    let client_ca = section.optional("client_ca_file", values::path);
    let given = |key: &&str| section.origin(key).is_some();
    if !["cert_file", "key_file", "client_ca_file"].iter().any(given) {
        return TlsSection::default();
    }
    let asks = given(&"client_ca_file");
    section.expect("cert_file", "the file with the server's certificate and its chain, in PEM");
    section.expect("key_file", "the file with the certificate's private key, in PEM");
    let tls = certificate.zip(key).and_then(|(certificate, key)| {
        let files = TlsFiles { certificate, key, client_ca };
        let read = read(&files).map_err(|problems| note(problems, |key, text| section.problem(key, text)));
        let (material, warnings) = read.ok()?;
        note(warnings, |key, text| section.warning(key, text));
        if material.has_expired(clock) {
            section.warning("cert_file", EXPIRED);
        }
        Some(Tls { files, material })
    });
    TlsSection { any: true, client_ca: asks, tls }
}

/// Reads all of the files, even if the first is bad. What was read comes with warnings.
fn read(files: &TlsFiles) -> Result<(TlsMaterial, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut reading = TlsLoader::default();
    let chain = reading.part("cert_file", &files.certificate, |content| files::certificates(&content.bytes));
    let key = reading.part("key_file", &files.key, private_key);
    let client_ca = files
        .client_ca
        .as_deref()
        .map(|path| reading.part("client_ca_file", path, |content| files::roots(&content.bytes)));
    if let (Some(chain), Some(key)) = (chain, key) {
        match CertifiedKey::from_der(chain, key, &default_provider()) {
            Ok(certified_key) if reading.problems.is_empty() => {
                let (certified_key, digest) = (Arc::new(certified_key), reading.digest.finalize().into());
                return Ok((TlsMaterial { certified_key, client_ca: client_ca.flatten(), digest }, reading.warnings));
            }
            Ok(_) => {}
            Err(_) => reading.problem("key_file", &files.key, "holds a key that is not the one of the certificate"),
        }
    }
    Err(reading.problems)
}

fn private_key(content: &Content) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&content.bytes).map_err(|_| "holds no private key in PEM".to_owned())
}

/// What was found on the way through the files.
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
        let read = files::read(path, files::LARGEST_FILE).and_then(|content| {
            self.digest.update(Sha256::digest(&content.bytes));
            if key == "key_file" {
                self.warnings.extend(credentials::warning(path, &content).map(|message| (key, message)));
            }
            parse(&content)
        });
        read.map_err(|message| self.problem(key, path, &message)).ok()
    }

    fn problem(&mut self, key: &'static str, path: &Path, message: &str) {
        self.problems.push((key, format!("{} {message}", values::shown(path))));
    }
}
