//! The configuration: one TOML file, overridden by the environment, read completely at startup.
//!
//! [`load`] reports all mistakes at once. Each message names the key or variable and what it expects, and never a
//! value, because a value under the wrong key may be a secret.
//!
//! ```text
//! [upstream]
//! timeout = "10s"        # SCM_GATEWAY__UPSTREAM__TIMEOUT=10s overrides this
//! ```

mod callers;
mod client;
mod credentials;
mod endpoint;
mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod listen;
mod methods;
mod profile;
mod projects;
mod proxy;
mod reader;
pub mod secret;
mod server;
mod sts;
mod system_roots;
mod telemetry;
#[cfg(test)]
mod tests;
mod tls;
mod upstream;
mod watch;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use toml::Table;

pub use callers::Caller;
pub use client::{Pem, PemKind, Target, admin_address, pem, target};
pub use credentials::{
    CredentialFiles, CredentialsSource, Oidc, PodIdentity, TemporarySource, TokenFile, read_profile,
};
pub use endpoint::Endpoint;
pub use files::CaFile;
pub use listen::{IdentitySource, Listen, XfccElements};
pub use projects::{Project, Projects};
pub use proxy::Proxy;
pub use reader::{Problem, Problems, Setting, Settings};
pub use server::{CALL_OVERHEAD, Connections, IDLE_CONNECTION, MemoryQuota, Server};
pub use telemetry::{Batch, Otlp, OtlpProtocol, OtlpTls, Sampler, Telemetry, Temporality};
pub use tls::{Tls, TlsFiles, TlsMaterial, expiry};
pub use upstream::{Breaker, Retry, Upstream};
pub use watch::Watch;

use crate::clock::Clock;
use credentials::oidc;
use reader::{Input, Report, Section, values};

/// The variables of the process environment. See [`environment`].
pub type Environment = BTreeMap<String, String>;

/// The complete configuration of a gateway.
#[derive(Debug, Clone)]
pub struct Config {
    /// The gRPC listener.
    pub server: Server,
    /// The listener for probes and metrics.
    pub admin: Admin,
    /// The requests to SCM.
    pub upstream: Upstream,
    /// The polls of watched certificates.
    pub watch: Watch,
    /// The vendor's projects.
    pub projects: Projects,
    /// The listed callers. If the list is empty, every caller is allowed.
    pub callers: Vec<Caller>,
    /// The export of traces and metrics.
    pub telemetry: Telemetry,
    /// Every key that has a value, and the source of the value.
    pub settings: Settings,
    /// Problems that do not prevent the start, one line each, without secrets.
    pub warnings: Vec<String>,
}

impl Config {
    /// Returns what `--check` prints and `/config` serves: a line for each setting, with its source; one for each project,
    /// which says where its credentials come from; and one for each caller, which says which methods it may call for which
    /// projects.
    pub fn listing(&self) -> String {
        let lines = std::iter::once(self.settings.to_string())
            .chain(self.projects.sources())
            .chain(callers::permissions(&self.callers, &self.server.methods));
        lines.map(|line| line + "\n").collect()
    }
}

/// `[admin]`: the listener for probes, metrics and the status page.
#[derive(Debug, Clone)]
pub struct Admin {
    /// The address, served in plain HTTP; `127.0.0.1:9464` by default.
    pub listen: SocketAddr,
    /// Whether `/`, `/status` and `/config` are served; by default only on a loopback address.
    pub pages: bool,
}

/// Reads the environment of the process.
#[allow(clippy::disallowed_methods, reason = "the single entry point of the environment")]
pub fn process_environment() -> Environment {
    environment(std::env::vars_os())
}

/// Collects variables.
///
/// Invalid UTF-8 is replaced by U+FFFD, which no key accepts. It is therefore reported for the variables that the
/// gateway reads, and ignored for the others.
pub fn environment(variables: impl Iterator<Item = (OsString, OsString)>) -> Environment {
    let text = |raw: OsString| raw.to_string_lossy().into_owned();
    variables.map(|(name, value)| (text(name), text(value))).collect()
}

/// The sections of the file and of the `SCM_GATEWAY__*` variables.
struct Parsed {
    server: Server,
    admin: Admin,
    upstream: Upstream,
    watch: Watch,
    /// `None` after a problem.
    projects: Option<Projects>,
    callers: Vec<Caller>,
}

/// Reads the file, if any, the environment, and the files that they name.
///
/// # Errors
///
/// Fails with all mistakes. If the file cannot be read or is not TOML, that is the only one.
pub fn load(file: Option<&Path>, environment: &Environment, clock: &Clock) -> Result<Config, Problems> {
    read(table(file)?, environment, clock, &host_name())
}

/// Returns the name of the machine, in Kubernetes of the pod.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn read(table: Table, environment: &Environment, clock: &Clock, host_name: &str) -> Result<Config, Problems> {
    let mut input = Input::new(environment);
    let parsed = input.root(table, |root| parse(root, environment, clock, host_name));
    let mut report = input.report;
    let telemetry = telemetry::read(environment, &mut report);
    let Parsed { server, admin, upstream, watch, projects: Some(projects), callers } = parsed else {
        return Err(Problems::from(report.problems));
    };
    if !report.problems.is_empty() {
        return Err(Problems::from(report.problems));
    }
    telemetry.report_settings(&mut report);
    let Report { warnings, settings, .. } = report;
    Ok(Config { server, admin, upstream, watch, projects, callers, telemetry, settings, warnings })
}

fn parse(root: &mut Section<'_>, environment: &Environment, clock: &Clock, host_name: &str) -> Parsed {
    let counts = server::ShareCounts { callers: root.count("callers"), projects: root.count("projects") };
    let server = root.section("server", |section| server::read(section, counts, clock));
    let admin = root.section("admin", admin);
    let session_name = oidc::default_session_name(host_name);
    let (upstream, defaults) = root.section("upstream", |section| {
        let upstream = upstream::read(section);
        let defaults = upstream::project_defaults(section, &upstream, environment, clock, session_name);
        (upstream, defaults)
    });
    let watch = root.section("watch", |section| watch::read(section, counts.callers));
    let projects = projects::read(root, &defaults, environment);
    if let Some(projects) = &projects {
        defaults.sts.finish(root.report(), projects.have_oidc());
    }
    upstream::reject_plain_proxy(root, &upstream, projects.as_ref());
    let callers = callers::read(root, &server, projects.as_ref());
    system_roots::check(environment, upstream.ca.is_some(), root.report());
    Parsed { server, admin, upstream, watch, projects, callers }
}

fn table(file: Option<&Path>) -> Result<Table, Problems> {
    file.map_or_else(|| Ok(Table::new()), |path| files::toml(path).map_err(|problem| Problems::from(vec![problem])))
}

fn admin(section: &mut Section<'_>) -> Admin {
    let listen = section.take("listen", "127.0.0.1:9464", values::address);
    let default = if listen.ip().to_canonical().is_loopback() { "true" } else { "false" };
    Admin { listen, pages: section.take("pages", default, values::boolean) }
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
