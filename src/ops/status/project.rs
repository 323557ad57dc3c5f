//! The status of one project.

use serde::Serialize;
use tokio::time::Instant;

use super::{Calls, Time};
use crate::clock::Moment;

/// A project.
#[derive(Debug, Clone, Serialize)]
pub struct Project {
    /// The id of the project.
    pub id: String,
    /// The region of SCM, if the endpoint names it.
    pub region: Option<String>,
    /// The endpoint of SCM.
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
    /// `environment`, `files`, `profile`, `oidc`, `pod_identity` or `ecs_agency`.
    pub source: &'static str,
    /// Whether changed files cannot be read, or the last exchange has failed.
    pub reload_failing: bool,
    /// The exchanges for temporary credentials, if the source is a service.
    pub exchange: Option<Exchange>,
    /// The credentials that SCM has accepted.
    pub in_use: Option<CredentialsVersion>,
    /// Newer credentials, which SCM has not accepted yet.
    pub pending: Option<CredentialsVersion>,
}

/// The last exchange for temporary credentials.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Exchange {
    /// When it ended.
    pub last_at: Option<Time>,
    /// What it brought.
    pub last_outcome: Option<ExchangeOutcome>,
    /// When the next one is due, unless it is in flight.
    pub next_at: Option<Time>,
}

/// What an exchange for temporary credentials brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ExchangeOutcome {
    /// New credentials.
    Issued,
    /// The current credentials again.
    Unchanged,
    /// The service rejected the request.
    Rejected,
    /// Any other failure.
    Failed,
}

impl ExchangeOutcome {
    /// All outcomes.
    pub const ALL: [Self; 4] = [Self::Issued, Self::Unchanged, Self::Rejected, Self::Failed];

    /// Returns whether the exchange brought no credentials.
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Rejected | Self::Failed)
    }

    /// Returns the name in metrics, which is that in the JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Unchanged => "unchanged",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
        }
    }
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
    /// The suspension has ended, and the next request is the probe.
    ProbeDue,
    /// The probe is in flight, and no other request is sent.
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
    /// Until when calls are rejected, if that is known.
    pub until: Option<Time>,
}

impl Circuit {
    /// Creates a circuit that is not closed since `opened`.
    pub(crate) fn new(state: CircuitState, opened: Option<Instant>, until: Option<Instant>, moment: &Moment) -> Self {
        let time = |at: Instant| moment.wall_time(at).into();
        let since = opened.filter(|_| state != CircuitState::Closed);
        Self { state, since: since.map(time), until: until.map(time) }
    }
}

/// The state of a circuit, ordered by how far it is from sending calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CircuitState {
    /// Calls are sent.
    Closed,
    /// The wait has ended, and the next call is the probe.
    ProbeDue,
    /// The probe is in flight, and other calls are rejected.
    HalfOpen,
    /// Calls are rejected.
    Open,
}

impl CircuitState {
    /// Returns whether calls are rejected, which `scm_gateway.circuit.open` counts as open.
    pub const fn rejects_calls(self) -> bool {
        matches!(self, Self::HalfOpen | Self::Open)
    }
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
    /// The cooldown has ended, and the next call is the probe.
    ProbeDue,
    /// The probe is in flight, and other calls are rejected.
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
