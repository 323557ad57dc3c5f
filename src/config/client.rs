//! What a client of the gateway with the same configuration needs, and the files that its options name.

use std::path::Path;
use std::time::Duration;

use toml::Value;
use zeroize::Zeroizing;

use super::files;
use super::listen::Listen;
use super::reader::{Input, Problems};
use super::{Environment, server, table, timeout, tls};

/// The variables that [`target`] reads, and the prefix of further ones.
const VARIABLES: [&str; 2] = ["SCM_GATEWAY__SERVER__LISTEN", "SCM_GATEWAY__UPSTREAM__TIMEOUT"];
const TLS_VARIABLES: &str = "SCM_GATEWAY__SERVER__TLS__";

/// A gateway as its clients see it.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// The address for calls.
    pub listen: Listen,
    /// Whether the listener has TLS.
    pub tls: bool,
    /// The gateway's limit of a call.
    pub timeout: Duration,
}

/// Reads only the listener and the timeout, to call a running gateway.
///
/// # Errors
///
/// Fails if the file cannot be read or is not TOML, and with the mistakes in these keys.
pub fn target(file: Option<&Path>, environment: &Environment) -> Result<Target, Problems> {
    let mut table = table(file)?;
    table.retain(|section, value| {
        let keys: &[&str] = match section {
            "server" => &["listen", "tls"],
            "upstream" => &["timeout"],
            _ => return false,
        };
        if let Value::Table(table) = value {
            table.retain(|key, _| keys.contains(&key));
        }
        true
    });
    let is_read = |name: &str| VARIABLES.contains(&name) || name.starts_with(TLS_VARIABLES);
    let variables = environment.iter().filter(|(name, _)| is_read(name));
    let mut input = Input::new(&variables.map(|(name, value)| (name.clone(), value.clone())).collect());
    let target = input.root(table, |root| {
        let (listen, tls) =
            root.section("server", |section| (server::listen(section), section.section("tls", tls::is_set)));
        Target { listen, tls, timeout: root.section("upstream", timeout) }
    });
    let problems = input.report.problems;
    if problems.is_empty() { Ok(target) } else { Err(Problems::from(problems)) }
}

/// The content of a PEM file. Wiped when it is dropped, because it may be a private key.
pub type Pem = Zeroizing<Vec<u8>>;

/// What a PEM file has to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PemKind {
    /// Certificates, at least one.
    Certificates,
    /// A private key.
    PrivateKey,
}

/// Reads and checks a PEM file.
///
/// # Errors
///
/// Fails with the path and the problem, and never with the content.
pub fn pem(path: &Path, kind: PemKind) -> Result<Pem, String> {
    let checked = files::read(path, files::MAX_FILE).and_then(|content| {
        match kind {
            PemKind::Certificates => files::certificates(&content.bytes).map(drop),
            PemKind::PrivateKey => files::private_key(&content.bytes).map(drop),
        }?;
        Ok(content.bytes)
    });
    checked.map_err(|message| format!("{} {message}", path.display()))
}
