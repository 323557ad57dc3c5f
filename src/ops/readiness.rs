//! Whether the gateway accepts calls, as `/readyz` and `grpc.health.v1` report it.
//!
//! The gateway is not ready after SIGTERM, and while no project has usable credentials: every call would end with
//! UPSTREAM_CREDENTIALS, so load balancers should use another instance. One project with usable credentials is enough,
//! because there is no readiness per project and callers of the other projects get the reason. An SCM outage does not
//! matter, because every instance has the same SCM behind it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

/// The reason why the gateway is not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotReady {
    /// The gateway is shutting down.
    Draining,
    /// No project has usable credentials.
    NoUsableCredential,
}

impl NotReady {
    /// Returns the text of the reason.
    pub fn name(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::NoUsableCredential => "no usable credentials",
        }
    }
}

/// The state that decides readiness.
pub struct Readiness {
    draining: AtomicBool,
    has_credential: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Readiness {
    /// Creates a state that is ready while `has_credential` returns true, until the drain.
    pub fn new(has_credential: impl Fn() -> bool + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { draining: AtomicBool::new(false), has_credential: Box::new(has_credential) })
    }

    /// Reports [`NotReady::Draining`] from now on.
    pub fn drain(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Returns whether the gateway is ready, or why not.
    pub fn now(&self) -> Result<(), NotReady> {
        if self.draining.load(Relaxed) {
            Err(NotReady::Draining)
        } else if (self.has_credential)() {
            Ok(())
        } else {
            Err(NotReady::NoUsableCredential)
        }
    }
}
