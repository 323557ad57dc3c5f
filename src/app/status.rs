//! Gathers the status of the gateway from the owners of its parts.

use std::sync::Arc;

use super::Addresses;
use crate::{
    clock::{Clock, Moment},
    grpc::{
        connection::{Connections, tls::Tls},
        gateway::Gateway,
        routes::Rpcs,
    },
    ops::{
        readiness::{NotReady, Readiness},
        status::{Listeners, Status},
        telemetry::Telemetry,
    },
};

/// The owners of what the status shows.
pub(super) struct Sources {
    pub(super) clock: Clock,
    pub(super) started: Moment,
    pub(super) addresses: Addresses,
    pub(super) readiness: Arc<Readiness>,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) gateway: Gateway,
    pub(super) connections: Arc<Connections<Rpcs>>,
    pub(super) telemetry: Arc<Telemetry>,
}

impl Sources {
    /// Returns the status at this moment.
    pub(super) fn status(&self) -> Status {
        let now = Moment::now(&self.clock);
        let readiness = self.readiness.now();
        let (calls, watches, projects) = self.gateway.status(&now);
        Status {
            version: env!("CARGO_PKG_VERSION"),
            now: now.wall.into(),
            started_at: self.started.wall.into(),
            uptime_seconds: now.monotonic.saturating_duration_since(self.started.monotonic).as_secs(),
            ready: readiness.is_ok(),
            not_ready_reason: readiness.err().map(NotReady::name),
            listeners: Listeners {
                grpc: self.addresses.server.clone(),
                admin: self.addresses.admin.to_string(),
                tls: self.tls.as_deref().map(Tls::status),
            },
            calls,
            connections: self.connections.status(),
            watches,
            projects,
            telemetry: self.telemetry.status(),
        }
    }
}
