//! The configuration: one TOML file overlaid by the environment, read whole before anything starts.
//!
//! [`load`] reports every mistake at once, each naming the key or the variable at fault and what would be right. It
//! never repeats a value: one written under the wrong key may be a secret.
//!
//! ```text
//! [upstream]
//! timeout = "10s"        # or SCM_GATEWAY__UPSTREAM__TIMEOUT=10s, which wins
//! ```

mod credentials;
mod endpoint;
mod files;
mod problems;
mod profile;
mod projects;
mod reader;
mod telemetry;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::{KIB, MIB};
use rustls::pki_types::CertificateDer;
use secrecy::SecretString;
use toml::Table;

pub use credentials::{KeyFiles, KeySource};
pub use endpoint::Endpoint;
pub use problems::{Problem, Problems};
pub use projects::{Project, Projects};
pub use telemetry::{Batch, Otlp, OtlpProtocol, Sampler, Telemetry};

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
    /// Where traces and metrics go.
    pub telemetry: Telemetry,
    /// What does not stop a start but should be looked at, one line each, without secrets. To be logged.
    pub warnings: Vec<String>,
}

/// `[server]`: the gRPC listener.
#[derive(Debug, Clone)]
pub struct Server {
    /// Where calls come in; `127.0.0.1:50051` by default.
    pub listen: Listen,
    /// How long the end may take after SIGTERM, calls in flight included; 20 s by default, at most an hour.
    pub drain: Duration,
    /// How long calls are still taken after health has turned, at most half of `drain`; 2 s by default.
    pub lame_duck: Duration,
    /// Calls in flight at a time, over all connections; 512 by default. Further ones are refused at once.
    pub max_in_flight: usize,
    /// The longest request message, in bytes; 256 KiB by default.
    pub max_message_size: usize,
    /// Whether server reflection is served; it is by default.
    pub reflection: bool,
    /// What one connection may cost.
    pub connection: Connection,
}

/// What one connection may cost.
#[derive(Debug, Clone)]
pub struct Connection {
    /// How long it may take to begin; 10 s by default.
    pub handshake_timeout: Duration,
    /// Calls at a time on it; 100 by default.
    pub max_streams: u32,
    /// The longest headers of a call, in bytes; 16 KiB by default.
    pub max_header_list_size: u32,
    /// Frames that bring no call further, beyond 20 for each that does and per 10 s; 1,000 by default.
    pub max_other_frames: u32,
    /// Bytes of a message that may be on their way, per call and per connection; 64 KiB and 1 MiB by default.
    pub windows: (u32, u32),
    /// After how long without a frame the peer is asked whether it is there, and how long it has to answer; 60 s and
    /// 20 s by default.
    pub keep_alive: (Duration, Duration),
}

/// An address for gRPC calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address and port.
    Tcp(SocketAddr),
    /// The absolute path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
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
    pub ca_certificates: Vec<CertificateDer<'static>>,
    /// Whether requests carry `X-Project-Id`; they do by default.
    pub send_project_id: bool,
    /// How often and how fast a call is repeated.
    pub retry: Retry,
    /// When a project's circuit opens, and for how long.
    pub circuit: Circuit,
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
    pub backoff: Duration,
    /// The longest pause; 2 s by default.
    pub max_backoff: Duration,
}

/// When a project's circuit opens, and for how long.
#[derive(Debug, Clone)]
pub struct Circuit {
    /// Failed calls in a row that open it; 7 by default.
    pub failures: u32,
    /// How long it stays open at first, 1 s by default; each probe that fails doubles it.
    pub open: Duration,
    /// How long it stays open at most; 4 s by default.
    pub max_open: Duration,
}

/// Collects the process environment.
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
pub fn load(file: Option<&Path>, environment: &Environment) -> Result<Config, Problems> {
    let table = match file {
        Some(path) => files::toml(path).map_err(|problem| Problems::from(vec![problem]))?,
        None => Table::new(),
    };
    let mut input = Input::new(environment);
    let (server, admin, upstream, projects) = input.root(table, |root| {
        let server = root.section("server", server);
        let admin = root.section("admin", admin);
        let (upstream, common) = root.section("upstream", upstream);
        let projects = projects::read(root, &common, environment);
        refuse_plain_proxy(root, &upstream, projects.as_ref());
        (server, admin, upstream, projects)
    });
    let telemetry = telemetry::read(environment, &mut input.warnings);
    match projects {
        Some(projects) if input.problems.is_empty() => {
            let warnings = input.warnings;
            Ok(Config { server, admin, upstream, projects, telemetry, warnings })
        }
        _ => Err(Problems::from(input.problems)),
    }
}

fn server(section: &mut Section<'_>) -> Server {
    let listen = Listen::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 50051)));
    let listen = section.take("listen", listen, values::listen);
    let plaintext = section.take("plaintext", false, values::boolean);
    if let Listen::Tcp(address) = &listen
        && !plaintext
        && !address.ip().is_loopback()
    {
        section.problem(
            "listen",
            "would take calls in plain text from other machines; listen on a loopback address or a Unix socket, or \
             set server.plaintext = true behind a mesh sidecar that encrypts",
        );
    }
    Server {
        listen,
        drain: section.take("drain", secs(20), values::duration(secs(0)..=secs(3600))),
        lame_duck: section.take("lame_duck", secs(2), values::duration(secs(0)..=secs(60))),
        max_in_flight: section.take("max_in_flight", 512, values::integer(1..=100_000)) as usize,
        max_message_size: section.take("max_message_size", 256 * 1024, values::size(KIB..=16 * MIB)),
        reflection: section.take("reflection", true, values::boolean),
        connection: Connection {
            handshake_timeout: section.take("handshake_timeout", secs(10), values::duration(millis(10)..=secs(60))),
            max_streams: section.take("max_streams", 100, values::integer(1..=10_000)),
            max_header_list_size: section.take("max_header_list_size", 16 * 1024, values::size(KIB..=MIB)) as u32,
            max_other_frames: section.take("max_other_frames", 1000, values::integer(100..=1_000_000)),
            windows: (
                section.take("stream_window", 64 * 1024, values::size(KIB..=16 * MIB)) as u32,
                section.take("connection_window", 1024 * 1024, values::size(64 * KIB..=64 * MIB)) as u32,
            ),
            keep_alive: (
                section.take("keep_alive", secs(60), values::duration(secs(1)..=secs(7200))),
                section.take("keep_alive_timeout", secs(20), values::duration(secs(1)..=secs(300))),
            ),
        },
    }
}

fn admin(section: &mut Section<'_>) -> Admin {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 9464));
    Admin { listen: section.take("listen", listen, values::address) }
}

/// Reads `[upstream]`, with what it says for the projects.
fn upstream(section: &mut Section<'_>) -> (Upstream, projects::Common) {
    let upstream = Upstream {
        connect_timeout: section.take("connect_timeout", secs(3), values::duration(millis(1)..=secs(60))),
        timeout: section.take("timeout", secs(10), values::duration(millis(50)..=secs(300))),
        ca_certificates: section.take("ca_file", Vec::new(), files::certificates),
        send_project_id: section.take("send_project_id", true, values::boolean),
        retry: Retry {
            attempts: section.take("attempts", 3, values::integer(1..=10)),
            backoff: section.take("backoff", millis(50), values::duration(millis(1)..=secs(60))),
            max_backoff: section.take("max_backoff", secs(2), values::duration(millis(1)..=secs(60))),
        },
        circuit: Circuit {
            failures: section.take("circuit_failures", 7, values::integer(1..=1000)),
            open: section.take("circuit_open", secs(1), values::duration(millis(10)..=secs(300))),
            max_open: section.take("circuit_max_open", secs(4), values::duration(millis(10)..=secs(300))),
        },
        proxy: section.optional("proxy", endpoint::proxy),
        metadata_endpoint: section.optional("metadata_endpoint", endpoint::metadata),
    };
    let endpoint = endpoint::read(section).unwrap_or_else(Endpoint::of_default_region);
    let agency = section.origin("metadata_endpoint").is_some();
    (upstream, projects::Common { endpoint, agency })
}

/// An `http://` endpoint is for this machine alone, and a proxy elsewhere would see the key's token and all data.
fn refuse_plain_proxy(root: &mut Section<'_>, upstream: &Upstream, projects: Option<&Projects>) {
    let elsewhere = upstream.proxy.as_ref().is_some_and(|proxy| !endpoint::is_local(proxy));
    if elsewhere && projects.is_some_and(|projects| projects.iter().any(|project| !project.endpoint.https())) {
        let message = "would get requests for an http:// endpoint in plain text; use https:// endpoints with a proxy";
        root.problem_elsewhere(Problem::new("upstream.proxy", message));
    }
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
