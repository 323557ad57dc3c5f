//! The configuration: one TOML file overlaid by the environment, read whole before anything starts.
//!
//! [`load`] reports every mistake at once, each naming the key or the variable at fault and what would be right. It
//! never repeats a value: one written under the wrong key may be a secret.
//!
//! ```text
//! [upstream]
//! timeout = "10s"        # or SCM_GATEWAY__UPSTREAM__TIMEOUT=10s, which wins
//! ```

mod callers;
mod credentials;
mod endpoint;
mod files;
mod problems;
mod profile;
mod projects;
mod raw;
mod reader;
pub mod secret;
mod server;
mod settings;
mod telemetry;
#[cfg(test)]
mod tests;
mod tls;
mod values;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use secrecy::SecretString;
use toml::Table;

pub use callers::{Caller, IdentitySource};
pub use credentials::{KeyFiles, KeySource};
pub use endpoint::Endpoint;
pub use files::CaFile;
pub use problems::{Problem, Problems};
pub use projects::{Project, Projects};
pub use server::{CALL_OVERHEAD, Connections, Listen, MemoryQuota, Server};
pub use settings::{Setting, Settings};
pub use telemetry::{Batch, Otlp, OtlpProtocol, Sampler, Telemetry};
pub use tls::{Tls, TlsFiles, TlsMaterial, expiry};

use crate::clock::Clock;
use reader::{Input, Section};

/// The process environment as the configuration sees it. Only `main` collects it, see [`environment`].
pub type Environment = BTreeMap<String, String>;

/// All that the gateway is told from outside.
#[derive(Debug, Clone)]
pub struct Config {
    /// The gRPC listener.
    pub server: Server,
    /// The listener for probes and metrics.
    pub admin: Admin,
    /// What holds for every call to the vendor.
    pub upstream: Upstream,
    /// The vendor's projects that may be called.
    pub projects: Projects,
    /// Who may call what; all may, if there is none.
    pub callers: Vec<Caller>,
    /// Where traces and metrics go.
    pub telemetry: Telemetry,
    /// Every key that has a value, and where it came from.
    pub settings: Settings,
    /// What does not stop a start but should be looked at, one line each, without secrets. To be logged.
    pub warnings: Vec<String>,
}

/// `[admin]`: the listener for probes and metrics.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Where it listens, in plain HTTP; `127.0.0.1:9464` by default, any address is fine.
    pub listen: SocketAddr,
}

/// `[upstream]`: what holds for every call to the vendor.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// How long a connection may take, TLS included; 3 s by default.
    pub connect_timeout: Duration,
    /// How long a call may take from its first byte to its last; 10 s by default.
    pub timeout: Duration,
    /// Trust roots besides the usual ones; none by default.
    pub ca: Option<CaFile>,
    /// Whether requests carry `X-Project-Id`; they do by default.
    pub send_project_id: bool,
    /// How often and how fast a call is repeated.
    pub retry: Retry,
    /// When a project's circuit opens, and for how long.
    pub breaker: Breaker,
    /// The URL of the proxy, perhaps with its user and password; none by default.
    pub proxy: Option<SecretString>,
    /// The metadata service of the ECS, which hands out temporary keys; none by default, and then none is asked.
    pub metadata_endpoint: Option<Endpoint>,
}

/// How often and how fast a call is repeated.
#[derive(Debug, Clone)]
pub struct Retry {
    /// Attempts of one call, the first among them; 3 by default.
    pub attempts: u32,
    /// The longest first pause, 50 ms by default; it doubles from attempt to attempt.
    pub initial_backoff: Duration,
    /// The longest pause; 2 s by default.
    pub max_backoff: Duration,
}

/// When a project's circuit opens, and for how long.
#[derive(Debug, Clone)]
pub struct Breaker {
    /// Failed calls in a row that open it; 7 by default.
    pub max_failures: u32,
    /// How long it stays open at first, 1 s by default; each probe that fails doubles it.
    pub backoff: Duration,
    /// How long it stays open at most; 4 s by default.
    pub max_backoff: Duration,
}

/// Reads the environment of the process: the only place that does.
#[allow(clippy::disallowed_methods, reason = "the only place that reads the environment")]
pub fn process_environment() -> Environment {
    environment(std::env::vars_os())
}

/// Collects variables.
///
/// What is not UTF-8 is kept with U+FFFD in its place, which no key accepts: it is reported where it matters and
/// disturbs nobody where it does not.
pub fn environment(variables: impl Iterator<Item = (OsString, OsString)>) -> Environment {
    let text = |os: OsString| os.to_string_lossy().into_owned();
    variables.map(|(name, value)| (text(name), text(value))).collect()
}

/// Reads the file, if there is one, the environment, and the files both name.
///
/// # Errors
///
/// All mistakes found. A file that cannot be read or is no TOML is the only one, for lack of anything to check.
pub fn load(file: Option<&Path>, environment: &Environment, clock: &Clock) -> Result<Config, Problems> {
    let table = table(file)?;
    let mut input = Input::new(environment);
    let (server, admin, upstream, projects, callers) = input.root(table, |root| {
        let counts = server::ShareCounts { callers: root.count("callers"), projects: root.count("projects") };
        let server = root.section("server", |section| server::read(section, counts, clock));
        let admin = root.section("admin", admin);
        let (upstream, common) = root.section("upstream", upstream);
        let projects = projects::read(root, &common, environment);
        refuse_plain_proxy(root, &upstream, projects.as_ref());
        let callers = callers::read(root, &server, projects.as_ref());
        (server, admin, upstream, projects, callers)
    });
    let telemetry = telemetry::read(environment, &mut input.warnings);
    match projects {
        Some(projects) if input.problems.is_empty() => {
            let Input { warnings, mut settings, .. } = input;
            telemetry.show(&mut settings);
            Ok(Config { server, admin, upstream, projects, callers, telemetry, settings, warnings })
        }
        _ => Err(Problems::from(input.problems)),
    }
}

/// Reads only where the admin listener is, for who asks a gateway that runs. Keys and certificates are that one's own.
///
/// # Errors
///
/// A file that cannot be read or is no TOML, and the mistakes in `[admin]`.
pub fn admin_address(file: Option<&Path>, environment: &Environment) -> Result<SocketAddr, Problems> {
    let mut table = table(file)?;
    table.retain(|key, _| key == "admin");
    let ours = environment.iter().filter(|(name, _)| name.starts_with("SCM_GATEWAY__ADMIN__"));
    let variables = ours.map(|(name, value)| (name.clone(), value.clone())).collect();
    let mut input = Input::new(&variables);
    let admin = input.root(table, |root| root.section("admin", admin));
    match input.problems.is_empty() {
        true => Ok(admin.listen),
        false => Err(Problems::from(input.problems)),
    }
}

fn table(file: Option<&Path>) -> Result<Table, Problems> {
    file.map_or_else(|| Ok(Table::new()), |path| files::toml(path).map_err(|problem| Problems::from(vec![problem])))
}

fn admin(section: &mut Section<'_>) -> Admin {
    Admin { listen: section.take("listen", "127.0.0.1:9464", values::address) }
}

/// Reads `[upstream]`, with what it says for the projects.
fn upstream(section: &mut Section<'_>) -> (Upstream, projects::ProjectDefaults) {
    let upstream = Upstream {
        connect_timeout: section.take("connect_timeout", "3s", values::duration(millis(1)..=secs(60))),
        timeout: section.take("timeout", "10s", values::duration(millis(50)..=secs(300))),
        ca: section.optional("ca_file", files::ca_file),
        send_project_id: section.take("send_project_id", "true", values::boolean),
        retry: Retry {
            attempts: section.take("attempts", "3", values::integer(1..=10)),
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
    let endpoint = endpoint::read(section).unwrap_or_else(|| endpoint::default(section));
    let agency = section.origin("metadata_endpoint").is_some();
    (upstream, projects::ProjectDefaults { endpoint, agency })
}

/// An `http://` endpoint is for this machine alone, and a proxy elsewhere would see the key's token and all data.
fn refuse_plain_proxy(root: &mut Section<'_>, upstream: &Upstream, projects: Option<&Projects>) {
    let elsewhere = upstream.proxy.as_ref().is_some_and(|proxy| !endpoint::is_local(proxy));
    if elsewhere && projects.is_some_and(|projects| projects.iter().any(|project| !project.endpoint.https())) {
        let message = "would get requests for an http:// endpoint in plain text; use https:// endpoints with a proxy";
        root.problem_at(Problem::new("upstream.proxy", message));
    }
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
