//! The lease of temporary credentials: until when they are valid, and whether SCM rejects them before.

use std::{
    sync::{Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use tokio::{sync::Notify, time::Instant};

use crate::clock::{self, Clock};

/// What temporary credentials have in addition. The refresher shares it with all projects of the source.
#[derive(Debug)]
pub(crate) struct Lease {
    expiry: Mutex<Expiry>,
    /// Notified when SCM rejects the credentials, because it may accept new ones.
    pub(super) rejected: Notify,
}

/// When credentials expire, on both clocks: the wall clock may be set, and the monotonic clock may stand still, as in a
/// suspend. The first to reach its time counts.
#[derive(Debug, Clone, Copy)]
struct Expiry {
    wall: SystemTime,
    monotonic: Instant,
}

impl Expiry {
    fn new(wall: SystemTime, left: Duration) -> Self {
        Self { wall, monotonic: clock::monotonic() + left }
    }
}

impl Lease {
    /// Creates the lease of credentials that expire at this time, so long from now.
    pub(super) fn new(expires_at: SystemTime, left: Duration) -> Self {
        Self { expiry: Mutex::new(Expiry::new(expires_at, left)), rejected: Notify::new() }
    }

    /// Returns when the credentials expire, by the wall clock.
    pub(super) fn expires_at(&self) -> SystemTime {
        self.lock().wall
    }

    /// Returns the time until the credentials expire.
    pub(super) fn remaining(&self, clock: &Clock) -> Duration {
        let Expiry { wall, monotonic } = *self.lock();
        let by_wall = wall.duration_since(clock.now()).unwrap_or_default();
        by_wall.min(monotonic.saturating_duration_since(clock::monotonic()))
    }

    /// Changes when the credentials expire: the service has issued them again.
    pub(super) fn renew(&self, expires_at: SystemTime, left: Duration) {
        *self.lock() = Expiry::new(expires_at, left);
    }

    fn lock(&self) -> MutexGuard<'_, Expiry> {
        self.expiry.lock().expect("no panic while the lock is held")
    }
}
