//! The status of the gateway, as `/status` and `/` show it: a model that each owner fills in its part of.
//!
//! It has no personal data, no caller and no id except those of projects. `docs/status.schema.json` describes each field.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer};

pub mod page;
mod project;

pub use project::{
    Circuit, CircuitState, Circuits, ClockSkew, Cooldown, CooldownState, Credentials, CredentialsVersion, Exchange,
    ExchangeOutcome, LastError, LastPolls, Project, ProjectWatches, Trust,
};

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
    /// Whether changed files cannot be used.
    pub reload_failing: bool,
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
    /// Spans that did not fit into the queue.
    pub lost: u64,
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
