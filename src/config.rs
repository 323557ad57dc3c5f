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
mod reader;
pub mod secret;
mod server;
mod sts;
mod system_roots;
mod telemetry;
#[cfg(test)]
mod tests;
mod tls;
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
pub use endpoint::{Endpoint, Proxy};
pub use files::CaFile;
pub use listen::{IdentitySource, Listen, XfccElements};
pub use projects::{Project, Projects};
pub use reader::{Problem, Problems, Setting, Settings};
pub use server::{CALL_OVERHEAD, Connections, IDLE_CONNECTION, MemoryQuota, Server};
pub use telemetry::{Batch, Otlp, OtlpProtocol, OtlpTls, Sampler, Telemetry, Temporality};
pub use tls::{Tls, TlsFiles, TlsMaterial, expiry};
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

/// `[upstream]`: the requests to SCM.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// The timeout of connecting, TLS included; 3 s by default.
    pub connect_timeout: Duration,
    /// The timeout of a call, with all its attempts; 10 s by default.
    pub timeout: Duration,
    /// Additional trust roots; none by default.
    pub ca: Option<CaFile>,
    /// Whether requests have an `X-Project-Id` header; true by default.
    pub send_project_id: bool,
    /// The retries of a call.
    pub retry: Retry,
    /// The circuit breaker of each project.
    pub breaker: Breaker,
    /// The HTTP proxy for connections to SCM; none by default.
    pub proxy: Option<Proxy>,
    /// The metadata service of the ECS, which provides temporary credentials; none by default.
    pub metadata_endpoint: Option<Endpoint>,
}

/// The retries of a call.
#[derive(Debug, Clone)]
pub struct Retry {
    /// The largest number of attempts, including the first; 3 by default.
    pub attempts: u32,
    /// The timeout of an attempt of a method that may be retried, connecting included; 4 s by default.
    pub attempt_timeout: Duration,
    /// The maximum of the first backoff; 50 ms by default. It doubles with each attempt.
    pub initial_backoff: Duration,
    /// The maximum of every backoff; 2 s by default.
    pub max_backoff: Duration,
}

/// The circuit breaker of each project.
#[derive(Debug, Clone)]
pub struct Breaker {
    /// Consecutive failed calls that open the circuit; 7 by default.
    pub max_failures: u32,
    /// How long the circuit stays open at first; 1 s by default. Each failed probe doubles it.
    pub backoff: Duration,
    /// The longest time that the circuit stays open; 4 s by default.
    pub max_backoff: Duration,
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
        let upstream = upstream(section);
        let defaults = project_defaults(section, &upstream, environment, clock, session_name);
        (upstream, defaults)
    });
    let watch = root.section("watch", |section| watch::read(section, counts.callers));
    let projects = projects::read(root, &defaults, environment);
    if let Some(projects) = &projects {
        defaults.sts.finish(root.report(), projects.have_oidc());
    }
    reject_plain_proxy(root, &upstream, projects.as_ref());
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

fn ca_file(section: &mut Section<'_>) -> Option<CaFile> {
    let ca = section.optional("ca_file", files::ca_file)?;
    if let Some(warning) = &ca.warning {
        section.warning("ca_file", warning);
    }
    Some(ca)
}

/// Reads the timeout of a call.
fn timeout(section: &mut Section<'_>) -> Duration {
    section.take("timeout", "10s", values::duration(millis(50)..=secs(300)))
}

/// Reads `[upstream]` except the defaults for the projects.
fn upstream(section: &mut Section<'_>) -> Upstream {
    let upstream = Upstream {
        connect_timeout: section.take("connect_timeout", "3s", values::duration(millis(1)..=secs(60))),
        timeout: timeout(section),
        ca: ca_file(section),
        send_project_id: section.take("send_project_id", "true", values::boolean),
        retry: Retry {
            attempts: section.take("attempts", "3", values::integer(1..=10)),
            attempt_timeout: section.take("attempt_timeout", "4s", values::duration(millis(50)..=secs(300))),
            initial_backoff: section.take("initial_backoff", "50ms", values::duration(millis(1)..=secs(60))),
            max_backoff: section.take("max_backoff", "2s", values::duration(millis(1)..=secs(60))),
        },
        breaker: Breaker {
            max_failures: section.take("circuit_max_failures", "7", values::integer(1..=1000)),
            backoff: section.take("circuit_backoff", "1s", values::duration(millis(10)..=secs(300))),
            max_backoff: section.take("circuit_max_backoff", "4s", values::duration(millis(10)..=secs(300))),
        },
        proxy: section.optional_redacted("proxy", endpoint::proxy_shown, endpoint::proxy),
        metadata_endpoint: section.optional("metadata_endpoint", endpoint::metadata),
    };
    warn_of_timeouts(section, &upstream);
    upstream
}

/// Reads the keys of `[upstream]` for the projects.
fn project_defaults<'d>(
    section: &mut Section<'_>,
    upstream: &Upstream,
    environment: &Environment,
    clock: &'d Clock,
    session_name: &'d str,
) -> projects::ProjectDefaults<'d> {
    let site = endpoint::read(section).unwrap_or_else(|| endpoint::default(section));
    // After a problem the configuration is rejected anyway; any endpoint lets the reading continue.
    let agency = upstream.metadata_endpoint.as_ref().unwrap_or(&site.endpoint);
    let agency = section.origin("metadata_endpoint").map(|_| agency.clone());
    let sts = sts::Sts::read(section, environment);
    projects::ProjectDefaults { site, agency, sts, session_name, clock }
}

/// Warns of an attempt timeout that makes another timeout or itself ineffective.
fn warn_of_timeouts(section: &mut Section<'_>, upstream: &Upstream) {
    let attempt_timeout = upstream.retry.attempt_timeout;
    if section.origin("attempt_timeout").is_none() {
        return;
    }
    if attempt_timeout >= upstream.timeout {
        section.warning("attempt_timeout", "is not less than timeout, so a hanging attempt is not retried");
    } else if attempt_timeout <= upstream.connect_timeout {
        section.warning("attempt_timeout", "is not more than connect_timeout, which has no effect then");
    }
}

/// Rejects a remote proxy for `http://` endpoints, because the proxy would see the security token and all data.
fn reject_plain_proxy(root: &mut Section<'_>, upstream: &Upstream, projects: Option<&Projects>) {
    let is_remote = upstream.proxy.as_ref().is_some_and(|proxy| !proxy.endpoint.is_loopback());
    if is_remote && projects.is_some_and(|projects| projects.iter().any(|project| !project.endpoint.https())) {
        let message = "would get requests for an http:// endpoint in plain text; use https:// endpoints with a proxy";
        root.report().problem("upstream.proxy", message);
    }
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
