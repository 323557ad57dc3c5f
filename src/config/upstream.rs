//! `[upstream]`: the requests to SCM.

use std::time::Duration;

use super::files::{self, CaFile};
use super::projects::{ProjectDefaults, Projects};
use super::reader::{Section, values};
use super::{Endpoint, Environment, Proxy, endpoint, millis, proxy, secs, sts};
use crate::clock::Clock;

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
    /// The HTTP proxy for connections to SCM and STS; none by default.
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

fn ca_file(section: &mut Section<'_>) -> Option<CaFile> {
    let ca = section.optional("ca_file", files::ca_file)?;
    if let Some(warning) = &ca.warning {
        section.warning("ca_file", warning);
    }
    Some(ca)
}

/// Reads the timeout of a call.
pub(super) fn timeout(section: &mut Section<'_>) -> Duration {
    section.take("timeout", "10s", values::duration(millis(50)..=secs(300)))
}

/// Reads `[upstream]` except the defaults for the projects.
pub(super) fn read(section: &mut Section<'_>) -> Upstream {
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
        proxy: section.optional_redacted("proxy", proxy::shown, proxy::parse),
        metadata_endpoint: section.optional("metadata_endpoint", endpoint::metadata),
    };
    warn_of_timeouts(section, &upstream);
    upstream
}

/// Reads the keys of `[upstream]` for the projects.
pub(super) fn project_defaults<'d>(
    section: &mut Section<'_>,
    upstream: &Upstream,
    environment: &Environment,
    clock: &'d Clock,
    session_name: &'d str,
) -> ProjectDefaults<'d> {
    let site = endpoint::read(section).unwrap_or_else(|| endpoint::default(section));
    // After a problem the configuration is rejected anyway; any endpoint lets the reading continue.
    let agency = upstream.metadata_endpoint.as_ref().unwrap_or(&site.endpoint);
    let agency = section.origin("metadata_endpoint").map(|_| agency.clone());
    let sts = sts::Sts::read(section, environment);
    ProjectDefaults { site, agency, sts, session_name, clock }
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
pub(super) fn reject_plain_proxy(root: &mut Section<'_>, upstream: &Upstream, projects: Option<&Projects>) {
    let is_remote = upstream.proxy.as_ref().is_some_and(|proxy| !proxy.endpoint.is_loopback());
    if is_remote && projects.is_some_and(|projects| projects.iter().any(|project| !project.endpoint.https())) {
        let message = "would get requests for an http:// endpoint in plain text; use https:// endpoints with a proxy";
        root.report().problem("upstream.proxy", message);
    }
}
