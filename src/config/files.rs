//! Reads the files that a configuration names, with a size limit.
//!
//! Messages name the file and the problem, and never the content.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use secrecy::SecretString;
use toml::Table;
use zeroize::Zeroizing;

use super::reader::{Problem, Raw, copied, values};

/// The largest configuration file or bundle of certificates in bytes.
pub(super) const MAX_FILE: u64 = 1024 * 1024;

/// The largest file with a secret in bytes. An access key has dozens of characters, a security token some thousand.
pub(super) const MAX_SECRET: u64 = 64 * 1024;

/// The content and permissions of a file.
pub(super) struct Content {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    open_to_everyone: bool,
}

/// A message about a file: the key that names the file, and the text.
pub(super) type Diagnostic = (&'static str, String);

/// Joins the messages without the names of the keys.
pub(super) fn in_one_line(diagnostics: Vec<Diagnostic>) -> String {
    diagnostics.into_iter().map(|(_, message)| message).collect::<Vec<_>>().join("; ")
}

/// Passes each message to `report` with its key.
pub(super) fn report_each(diagnostics: Vec<Diagnostic>, mut report: impl FnMut(&'static str, &str)) {
    diagnostics.iter().for_each(|(key, message)| report(key, message));
}

/// Reads a regular file of at most `limit` bytes. The error message has no subject: the caller adds the path.
pub(super) fn read(path: &Path, limit: u64) -> Result<Content, String> {
    let failed = |error: io::Error| format!("cannot be read: {error}");
    let metadata = fs::metadata(path).map_err(failed)?;
    // Opening a pipe without a writer would block forever.
    if !metadata.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let mut file = fs::File::open(path).map_err(failed)?.take(limit + 1);
    // The full capacity from the start, because a growing vector leaves copies behind that are not wiped.
    let capacity = metadata.len().min(limit) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(capacity).unwrap_or_default()));
    file.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(format!("is larger than {} KiB", limit / 1024));
    }
    Ok(Content { bytes, open_to_everyone: metadata.permissions().mode() & 0o006 != 0 })
}

/// A secret read from a file.
pub(super) struct SecretFile {
    pub(super) text: SecretString,
    /// A warning about the permissions of the file.
    pub(super) warning: Option<String>,
}

/// Reads a file with a secret, which `parse` checks.
pub(super) fn read_secret(
    path: &Path,
    parse: impl FnOnce(&[u8]) -> Result<SecretString, String>,
) -> Result<SecretFile, String> {
    let with_path = |message: String| format!("{} {message}", values::shown(path));
    let content = read(path, MAX_SECRET).map_err(with_path)?;
    let text = parse(&content.bytes).map_err(with_path)?;
    Ok(SecretFile { text, warning: permission_warning(path, &content) })
}

/// Returns a warning if every user of the machine can access a file with a secret.
pub(super) fn permission_warning(path: &Path, content: &Content) -> Option<String> {
    let path = path.display();
    content.open_to_everyone.then(|| format!("{path} is open to everyone on this machine; run `chmod o-rw {path}`"))
}

/// Reads the configuration file.
pub(super) fn toml(path: &Path) -> Result<Table, Problem> {
    let problem = |message: String| Problem::new(path.display().to_string(), message);
    let content = read(path, MAX_FILE).map_err(problem)?;
    let text = str::from_utf8(&content.bytes).map_err(|_| problem("is not UTF-8".to_owned()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text); // editors on Windows write a byte order mark
    text.parse().map_err(|error| problem(syntax_error(text, &error)))
}

/// Trust roots and their file, which can be read again.
#[derive(Debug, Clone)]
pub struct CaFile {
    path: PathBuf,
    /// The certificates in the file at startup.
    pub certificates: Vec<CertificateDer<'static>>,
    /// A warning about blocks that are ignored.
    pub(super) warning: Option<String>,
}

impl CaFile {
    /// Reads the file again.
    ///
    /// # Errors
    ///
    /// Fails with the reason if the file is unreadable or invalid.
    pub fn read(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        read_roots(&self.path).map(|(certificates, _)| certificates)
    }
}

/// Parses and reads `ca_file`.
pub(super) fn ca_file(raw: &Raw) -> Result<CaFile, String> {
    let path = values::path(raw)?;
    read_roots(&path).map(|(certificates, warning)| CaFile { path, certificates, warning })
}

/// Reads trust roots, with a warning about blocks that are ignored.
fn read_roots(path: &Path) -> Result<(Vec<CertificateDer<'static>>, Option<String>), String> {
    let roots = read(path, MAX_FILE).and_then(|content| Ok((roots(&content.bytes)?, ignored_warning(path, &content))));
    roots.map_err(|message| format!("{} {message}", values::shown(path)))
}

/// Returns a warning if a file of certificates has a block that is ignored: OpenSSL's own formats.
pub(super) fn ignored_warning(path: &Path, content: &Content) -> Option<String> {
    let has = |label: &&str| {
        let begin = format!("-----BEGIN {label}-----");
        content.bytes.windows(begin.len()).any(|window| window == begin.as_bytes())
    };
    let label = ["TRUSTED CERTIFICATE", "X509 CERTIFICATE"].into_iter().find(has)?;
    Some(format!("{} has a block {label}, which is ignored; convert it with `openssl x509`", values::shown(path)))
}

/// Parses certificates in PEM, at least one.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut certificates = Vec::new();
    for certificate in blocks(pem).filter_map(|block| CertificateDer::pem_slice_iter(block).next()) {
        let number = certificates.len() + 1;
        certificates.push(certificate.map_err(|_| format!("is not PEM (certificate number {number})"))?);
    }
    if certificates.is_empty() { Err(not_pem(pem, "certificate")) } else { Ok(certificates) }
}

/// Parses the first private key in PEM.
pub(super) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let key = blocks(pem).find_map(|block| PrivateKeyDer::pem_slice_iter(block).next());
    key.and_then(Result::ok).ok_or_else(|| {
        let has = |text: &[u8]| pem.windows(text.len()).any(|window| window == text);
        if has(b"ENCRYPTED") {
            "holds an encrypted private key; decrypt it with `openssl pkey`".to_owned()
        } else if has(b"BEGIN OPENSSH PRIVATE KEY") {
            "holds a private key in the format of OpenSSH; convert it with `ssh-keygen -p -m PKCS8`".to_owned()
        } else {
            not_pem(pem, "private key")
        }
    })
}

/// Describes a file without a block in PEM.
fn not_pem(bytes: &[u8], block: &str) -> String {
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "is UTF-16; save it as ASCII".to_owned(),
        [0x30, 0x80..=0xff, ..] => "is binary (DER or PKCS#12); convert it to PEM with `openssl`".to_owned(),
        _ => format!("holds no {block} in PEM"),
    }
}

/// Encodes a certificate or private key in PEM.
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64.encode(der))
}

/// Returns the blocks of a file, each from its BEGIN to the next. In the whole file, the parser would skip a block whose
/// first line also holds the end of the previous block, as in files joined without a line end, or a byte order mark. It
/// would join a block without an END line to the next one.
fn blocks(pem: &[u8]) -> impl Iterator<Item = &[u8]> {
    let starts: Vec<_> = (0..pem.len()).filter(|at| pem[*at..].starts_with(b"-----BEGIN ")).collect();
    let ends = starts.clone().into_iter().skip(1).chain([pem.len()]);
    starts.into_iter().zip(ends).map(|(start, end)| &pem[start..end])
}

/// Parses certificates in PEM, at least one, each of them usable as a trust root.
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

/// Describes a syntax error by its position. The error's `Display` would show the line, which may hold a secret.
pub(super) fn syntax_error(text: &str, error: &toml::de::Error) -> String {
    let description = match error.message() {
        "duplicate key" => "the key stands here for the second time",
        _ => "not valid TOML",
    };
    let found = |line: &str| copied::kind(line).map(|kind| format!(" (the line has {kind})")).unwrap_or_default();
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else {
        return description.to_owned();
    };
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    let found = text.lines().nth(line - 1).map(found).unwrap_or_default();
    format!("line {line}, column {column}: {description}{found}")
}
