//! The certificates of an exporter.

use std::path::{Path, PathBuf};

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use secrecy::SecretString;

use super::Signal;
use super::variables::{Variables, otlp_names};
use crate::config::files::{self, Content};
use crate::config::reader::values;

/// The certificates of an exporter, in PEM.
#[derive(Debug, Clone, Default)]
pub struct OtlpTls {
    /// The trust roots; those of the system by default.
    pub roots: Option<String>,
    /// The client certificate with its chain and private key; none by default.
    pub identity: Option<SecretString>,
}

/// The parsed content of a file, with the variable that names the file.
struct File<T> {
    variable: String,
    path: PathBuf,
    content: T,
}

impl Variables<'_> {
    /// Reads the files of a signal. Returns `None` if one is invalid. Nothing is exported then: telemetry may be
    /// confidential, and other trust roots would accept another collector.
    pub(super) fn tls(&mut self, signal: &Signal, endpoint: &str) -> Option<OtlpTls> {
        if endpoint.to_ascii_lowercase().starts_with("http://") {
            for suffix in ["CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"] {
                if let Some((_, variable)) = self.set(signal, suffix) {
                    self.warn(&variable, "is ignored: the endpoint begins with http://, so there is no TLS");
                }
            }
            return Some(OtlpTls::default());
        }
        let roots = self.file(signal, "CERTIFICATE", |content| files::roots(&content.bytes));
        let chain = self.file(signal, "CLIENT_CERTIFICATE", |content| files::certificates(&content.bytes));
        let key = self.file(signal, "CLIENT_KEY", |content| files::private_key(&content.bytes));
        let (roots, chain, key) = (roots?, chain?, key?);
        let identity = match (chain, key) {
            (None, None) => None,
            (Some(chain), Some(key)) => Some(self.identity(&chain, &key)?),
            (Some(File { variable, .. }), None) => return self.incomplete(&variable, signal, "CLIENT_KEY"),
            (None, Some(File { variable, .. })) => return self.incomplete(&variable, signal, "CLIENT_CERTIFICATE"),
        };
        Some(OtlpTls { roots: roots.map(|roots| certificates_in_pem(&roots.content)), identity })
    }

    /// Reads the file that the signal's own variable or the general one names. Returns `None` if the file is invalid,
    /// and `Some(None)` if no variable is set.
    fn file<T>(
        &mut self,
        signal: &Signal,
        suffix: &str,
        parse: impl FnOnce(&Content) -> Result<T, String>,
    ) -> Option<Option<File<T>>> {
        let Some((path, variable)) = self.set(signal, suffix) else { return Some(None) };
        let read = files::read(&path, files::MAX_FILE).and_then(|content| {
            let is_key = suffix == "CLIENT_KEY";
            let warning = if is_key { files::permission_warning } else { files::ignored_warning };
            if let Some(warning) = warning(&path, &content) {
                self.warn(&variable, warning);
            }
            parse(&content)
        });
        match read {
            Ok(content) => Some(Some(File { variable, path, content })),
            Err(message) => self.invalid(&variable, &path, &message),
        }
    }

    /// Returns the path that the signal's own variable or the general one names, and the variable. A path that is not
    /// UTF-8 names no file.
    fn set(&self, signal: &Signal, suffix: &str) -> Option<(PathBuf, String)> {
        let path = |name: String| Some((PathBuf::from(self.get_lossy(&name)?), name));
        otlp_names(signal, suffix).into_iter().find_map(path)
    }

    fn identity(
        &mut self,
        chain: &File<Vec<CertificateDer<'static>>>,
        key: &File<PrivateKeyDer<'static>>,
    ) -> Option<SecretString> {
        let pair = CertifiedKey::from_der(chain.content.clone(), key.content.clone_key(), &default_provider());
        if pair.is_err() {
            return self.invalid(&key.variable, &key.path, "holds a key that is not the one of the certificate");
        }
        let label = match key.content {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        let key = files::pem(label, key.content.secret_der());
        Some(SecretString::from(certificates_in_pem(&chain.content) + &key))
    }

    fn incomplete<T>(&mut self, variable: &str, signal: &Signal, missing: &str) -> Option<T> {
        let [_, general] = otlp_names(signal, missing);
        self.warn(variable, format_args!("needs {general} as well; nothing is exported"));
        None
    }

    fn invalid<T>(&mut self, variable: &str, path: &Path, message: &str) -> Option<T> {
        self.warn(variable, format_args!("{} {message}; nothing is exported", values::shown(path)));
        None
    }
}

fn certificates_in_pem(certificates: &[CertificateDer<'_>]) -> String {
    certificates.iter().map(|certificate| files::pem("CERTIFICATE", certificate)).collect()
}
