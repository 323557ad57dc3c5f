//! What a client of the gateway with the same configuration needs, and the files that its options name.

use std::{net::SocketAddr, path::Path, time::Duration};

use toml::Value;
use zeroize::Zeroizing;

use super::{
    Environment, admin, files,
    listen::Listen,
    reader::{Input, Problems, Section},
    server, table, tls, upstream,
};

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
    let keys = |section: &str, value: &mut Value| {
        let keys: &[&str] = match section {
            "server" => &["listen", "tls"],
            "upstream" => &["timeout"],
            _ => return false,
        };
        if let Value::Table(table) = value {
            table.retain(|key, _| keys.contains(&key));
        }
        true
    };
    let is_read = |name: &str| VARIABLES.contains(&name) || name.starts_with(TLS_VARIABLES);
    read_part(file, environment, keys, is_read, |root| {
        let (listen, tls) =
            root.section("server", |section| (server::listen(section), section.section("tls", tls::is_set)));
        Target { listen, tls, timeout: root.section("upstream", upstream::timeout) }
    })
}

/// Reads only the address of the admin listener, to query a running gateway.
///
/// # Errors
///
/// Fails if the file cannot be read or is not TOML, and with the mistakes in `[admin]`.
pub fn admin_address(file: Option<&Path>, environment: &Environment) -> Result<SocketAddr, Problems> {
    let is_read = |name: &str| name.starts_with("SCM_GATEWAY__ADMIN__");
    let admin =
        read_part(file, environment, |section, _| section == "admin", is_read, |root| root.section("admin", admin));
    Ok(admin?.listen)
}

/// Reads a part of the configuration: what `retain` leaves of the file, and these variables. Mistakes elsewhere do not matter.
fn read_part<T>(
    file: Option<&Path>,
    environment: &Environment,
    mut retain: impl FnMut(&str, &mut Value) -> bool,
    is_variable: impl Fn(&str) -> bool,
    read: impl FnOnce(&mut Section<'_>) -> T,
) -> Result<T, Problems> {
    let mut table = table(file)?;
    table.retain(|section, value| retain(section, value));
    let variables = environment.iter().filter(|(name, _)| is_variable(name));
    let mut input = Input::new(&variables.map(|(name, value)| (name.clone(), value.clone())).collect());
    let part = input.root(table, read);
    let problems = input.report.problems;
    if problems.is_empty() { Ok(part) } else { Err(Problems::from(problems)) }
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
