//! Reads the files of a configuration, bounded, and says what is wrong with them without showing their content.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use toml::Table;
use zeroize::Zeroizing;

use super::problems::Problem;
use super::raw::Raw;
use super::values;

/// Far beyond a configuration or a bundle of roots, and still nothing for the memory.
pub(super) const LARGEST_FILE: u64 = 1024 * 1024;

/// A file's content and permissions.
pub(super) struct Content {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    pub(super) open_to_everyone: bool,
}

/// Reads a regular file of at most `limit` bytes. The message of a failure has no subject: the caller puts the path.
pub(super) fn read(path: &Path, limit: u64) -> Result<Content, String> {
    let failed = |error: io::Error| format!("cannot be read: {error}");
    let metadata = fs::metadata(path).map_err(failed)?;
    // Opening a pipe that nobody writes to would wait for ever.
    if !metadata.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let mut file = fs::File::open(path).map_err(failed)?.take(limit + 1);
    // Room for all of it: a vector that grows leaves unwiped copies behind.
    let room = metadata.len().min(limit) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(room).unwrap_or_default()));
    file.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(format!("is larger than {} KiB", limit / 1024));
    }
    Ok(Content { bytes, open_to_everyone: metadata.permissions().mode() & 0o006 != 0 })
}

/// Reads the configuration file itself.
pub(super) fn toml(path: &Path) -> Result<Table, Problem> {
    let problem = |message: String| Problem::new(path.display().to_string(), message);
    let content = read(path, LARGEST_FILE).map_err(problem)?;
    let text = str::from_utf8(&content.bytes).map_err(|_| problem("is not UTF-8".to_owned()))?;
    text.parse().map_err(|error| problem(syntax(text, &error)))
}

/// Trust roots and the file they are read from, and are read from again.
#[derive(Debug, Clone)]
pub struct CaFile {
    path: PathBuf,
    /// What it held at the start.
    pub certificates: Vec<CertificateDer<'static>>,
}

impl CaFile {
    /// Reads the file again.
    ///
    /// # Errors
    ///
    /// What is wrong with it, without its content.
    pub fn read(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        read_roots(&self.path)
    }
}

/// Reads `ca_file`.
pub(super) fn ca_file(raw: &Raw) -> Result<CaFile, String> {
    let path = values::path(raw)?;
    read_roots(&path).map(|certificates| CaFile { path, certificates })
}

fn read_roots(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let content = read(path, LARGEST_FILE).and_then(|content| roots(&content.bytes));
    content.map_err(|message| format!("{} {message}", values::shown(path)))
}

/// At least one certificate in PEM.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| "is not PEM".to_owned())?;
    match certificates.is_empty() {
        true => Err("holds no certificate in PEM".to_owned()),
        false => Ok(certificates),
    }
}

/// At least one certificate in PEM, each fit to be a trust root.
pub(super) fn roots(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = certificates(pem)?;
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates.iter().enumerate() {
        let number = index + 1;
        roots
            .add(certificate.clone())
            .map_err(|_| format!("holds something that is no certificate (number {number})"))?;
    }
    Ok(certificates)
}

/// Names the place of a syntax error. Its `Display` would show the line, and that may hold a secret.
fn syntax(text: &str, error: &toml::de::Error) -> String {
    let what = match error.message() {
        "duplicate key" => "the key stands here for the second time",
        _ => "not valid TOML",
    };
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else {
        return what.to_owned();
    };
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    format!("line {line}, column {column}: {what}")
}
