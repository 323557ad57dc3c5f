//! The status of the gateway, as `/status` and `/` show it: a model that each owner fills in its part of.
//!
//! It has no personal data, no caller and no id except those of projects. `docs/status.schema.json` describes each field.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer};

pub mod page;

/// The last second that RFC 3339 can write.
const LAST_SECOND: u64 = 253_402_300_799;

/// A time of the wall clock, in RFC 3339 with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(SystemTime);

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        Self(time.clamp(SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + Duration::from_secs(LAST_SECOND)))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_millis(self.0).fmt(f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The status of the gateway.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The version of the gateway.
    pub version: &'static str,
    /// The time of this status.
    pub now: Time,
    /// When the gateway started.
    pub started_at: Time,
    /// The time since the start.
    pub uptime_seconds: u64,
    /// Whether `/readyz` answers 200.
    pub ready: bool,
    /// Why not, as in `/readyz`.
    pub not_ready_reason: Option<&'static str>,
    /// The listeners.
    pub listeners: Listeners,
    /// The calls in flight of all projects.
    pub calls: Calls,
    /// The connections of callers.
    pub connections: Connections,
    /// The watches of certificates.
    pub watches: Watches,
    /// The projects, ordered by id.
    pub projects: Vec<Project>,
    /// The export of telemetry, and the log.
    pub telemetry: Telemetry,
}

impl Status {
    /// Returns the status as JSON.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("the model has only text keys") + "\n"
    }
}

/// The listeners.
#[derive(Debug, Clone, Serialize)]
pub struct Listeners {
    /// The address of gRPC calls.
    pub grpc: String,
    /// The address of this page.
    pub admin: String,
    /// TLS of the gRPC listener, if it is used.
    pub tls: Option<Tls>,
}

/// TLS of the gRPC listener.
#[derive(Debug, Clone, Serialize)]
pub struct Tls {
    /// The expiry of the certificate or of the first in its chain to expire.
    pub certificate_expires_at: Option<Time>,
    /// The expiry of the first client CA to expire.
    pub client_ca_expires_at: Option<Time>,
}

/// Calls in flight.
#[derive(Debug, Clone, Serialize)]
pub struct Calls {
    /// The calls that hold a permit.
    pub in_flight: usize,
    /// The limit.
    pub max: usize,
}

/// The connections of callers.
#[derive(Debug, Clone, Serialize)]
pub struct Connections {
    /// Open connections.
    pub open: usize,
    /// `server.max_connections`.
    pub max: usize,
    /// `server.max_connections_per_caller`.
    pub max_per_caller: usize,
    /// Open connections of unlisted callers.
    pub unlisted: usize,
    /// The limit of them.
    pub max_unlisted: usize,
    /// Open connections of each worker.
    pub per_worker: Vec<usize>,
    /// The memory of all connections.
    pub memory_bytes: usize,
    /// `server.connection_memory_quota`.
    pub memory_quota_bytes: usize,
}

/// The watches of certificates.
#[derive(Debug, Clone, Serialize)]
pub struct Watches {
    /// Open watches.
    pub open: usize,
    /// `watch.max`.
    pub max: usize,
}

/// A project.
#[derive(Debug, Clone, Serialize)]
pub struct Project {
    /// The id of the project.
    pub id: String,
    /// The endpoint of SCM, which names the region.
    pub endpoint: String,
    /// The credentials.
    pub credentials: Credentials,
    /// The circuits that reject calls without a request to SCM.
    pub circuits: Circuits,
    /// The cooldown after a 429 of SCM.
    pub cooldown: Cooldown,
    /// The difference between the clocks of SCM and the gateway.
    pub clock: ClockSkew,
    /// The last error of a request to SCM, except errors of the caller.
    pub last_error: Option<LastError>,
    /// The calls in flight.
    pub calls: Calls,
    /// The watched certificates.
    pub watches: ProjectWatches,
}

/// The credentials of a project.
#[derive(Debug, Clone, Serialize)]
pub struct Credentials {
    /// `environment`, `files`, `profile` or `agency`.
    pub source: &'static str,
    /// The credentials that SCM has accepted.
    pub in_use: Option<CredentialsVersion>,
    /// Newer credentials, which SCM has not accepted yet.
    pub pending: Option<CredentialsVersion>,
}

/// One version of credentials.
#[derive(Debug, Clone, Serialize)]
pub struct CredentialsVersion {
    /// When the gateway loaded them.
    pub loaded_at: Time,
    /// The time since then.
    pub age_seconds: u64,
    /// The expiry of temporary credentials.
    pub expires_at: Option<Time>,
    /// How far they are trusted.
    pub trust: Trust,
    /// Until when they are suspended.
    pub suspended_until: Option<Time>,
    /// When SCM last rejected a signature of their access key.
    pub last_rejected_at: Option<Time>,
}

/// How far credentials are trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// SCM has not accepted a signature yet.
    Unverified,
    /// SCM accepted the last signature.
    Verified,
    /// SCM rejected the last signature, or the clock jumped.
    Suspect,
    /// SCM rejected signatures in a row, so no request is sent.
    Suspended,
    /// The suspension has ended, and one request is in flight.
    Probing,
}

/// The circuits of a project.
#[derive(Debug, Clone, Serialize)]
pub struct Circuits {
    /// Opens while SCM is unavailable.
    pub upstream: Circuit,
    /// Opens when SCM rejects the credentials.
    pub credentials: Circuit,
}

/// A circuit.
#[derive(Debug, Clone, Serialize)]
pub struct Circuit {
    /// Whether calls are sent.
    pub state: CircuitState,
    /// Since when it is not closed.
    pub since: Option<Time>,
    /// Until when calls are rejected.
    pub until: Option<Time>,
}

impl Circuit {
    /// A closed circuit.
    pub const CLOSED: Self = Self { state: CircuitState::Closed, since: None, until: None };
}

/// The state of a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CircuitState {
    /// Calls are sent.
    Closed,
    /// Calls are rejected.
    Open,
    /// One call is sent as a probe.
    HalfOpen,
}

/// The cooldown of a project.
#[derive(Debug, Clone, Serialize)]
pub struct Cooldown {
    /// Whether calls are sent.
    pub state: CooldownState,
    /// Until when calls are rejected.
    pub until: Option<Time>,
}

/// The state of a cooldown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CooldownState {
    /// There is no cooldown.
    None,
    /// Calls are rejected.
    Active,
    /// The cooldown has ended, and one call is sent as a probe.
    Probing,
}

/// The difference between the clocks.
#[derive(Debug, Clone, Serialize)]
pub struct ClockSkew {
    /// How far SCM's clock is ahead, by its last response.
    pub skew_seconds: i64,
    /// What is added to the clock of the gateway in signatures.
    pub correction_seconds: i64,
}

/// The last error of a project.
#[derive(Debug, Clone, Serialize)]
pub struct LastError {
    /// The reason, as in `ErrorInfo`.
    pub reason: &'static str,
    /// When the request failed.
    pub at: Time,
}

/// The watched certificates of a project.
#[derive(Debug, Clone, Serialize)]
pub struct ProjectWatches {
    /// Watched certificates.
    pub certificates: LastPolls,
    /// Polls that wait until others of the project have ended.
    pub waiting_polls: usize,
}

/// Watched certificates by the result of their last poll.
#[derive(Debug, Clone, Serialize)]
pub struct LastPolls {
    /// The first poll has no result yet.
    pub none: usize,
    /// The last poll succeeded.
    pub succeeded: usize,
    /// The last poll failed with an error that may pass.
    pub failed: usize,
}

/// The export of telemetry, and the log, since the start.
#[derive(Debug, Clone, Serialize)]
pub struct Telemetry {
    /// Spans.
    pub spans: Spans,
    /// Exports of all metrics by OTLP.
    pub metric_exports: Exports,
    /// Log lines that were lost.
    pub log_lines_dropped: u64,
}

/// Spans by their state.
#[derive(Debug, Clone, Serialize)]
pub struct Spans {
    /// Sampled spans that ended, if traces are exported.
    pub ended: u64,
    /// Exported spans.
    pub exported: u64,
    /// Spans whose export failed.
    pub failed: u64,
}

/// Exports by their result.
#[derive(Debug, Clone, Serialize)]
pub struct Exports {
    /// Exports that succeeded.
    pub exported: u64,
    /// Exports that failed.
    pub failed: u64,
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{LAST_SECOND, Time};

    #[test]
    fn every_time_can_be_written() {
        let epoch = SystemTime::UNIX_EPOCH;
        let last = epoch + Duration::from_secs(LAST_SECOND);
        for (time, text) in [
            (epoch - Duration::from_secs(1), "1970-01-01T00:00:00.000Z"),
            (epoch + Duration::from_millis(1_660_017_906_789), "2022-08-09T04:05:06.789Z"),
            (last, "9999-12-31T23:59:59.000Z"),
            (last + Duration::from_secs(1), "9999-12-31T23:59:59.000Z"),
        ] {
            assert_eq!(Time::from(time).to_string(), text);
        }
    }
}
