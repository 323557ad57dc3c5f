//! Why connections are closed before their first call, and how many.

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};

/// Why a connection is closed before its first call.
#[derive(Clone, Copy)]
pub(super) enum Rejection {
    Limit,
    LimitPerCaller,
    Tls,
    HandshakeTimeout,
    HandshakeEvicted,
}

impl Rejection {
    const ALL: [Self; 5] =
        [Self::Limit, Self::LimitPerCaller, Self::Tls, Self::HandshakeTimeout, Self::HandshakeEvicted];

    /// Returns the `reason` label.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::LimitPerCaller => "limit_per_caller",
            Self::Tls => "tls",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::HandshakeEvicted => "handshake_evicted",
        }
    }
}

/// The counter of rejected connections.
pub(super) struct Rejections(Counter<u64>);

impl Rejections {
    /// Creates the counter, with a series for each reason, so that a rate sees the first rejection.
    pub(super) fn new(meter: &Meter) -> Self {
        let counter = meter
            .u64_counter("scm_gateway.connections.refused")
            .with_description("Connections closed before their first call, by reason")
            .build();
        for rejection in Rejection::ALL {
            counter.add(0, &[KeyValue::new("reason", rejection.reason())]);
        }
        Self(counter)
    }

    /// Counts a rejected connection.
    pub(super) fn count(&self, rejection: Rejection) {
        self.0.add(1, &[KeyValue::new("reason", rejection.reason())]);
    }
}
