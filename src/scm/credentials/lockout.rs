//! Protects access keys from SCM's lockout: the trust state of each access key and its transitions.
//!
//! Rejections are counted per access key, over all projects that sign with it, because SCM counts them that way too.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::error::{Error, Reason};

/// Requests in flight with credentials that SCM has not accepted yet or has rejected last.
const MAX_UNVERIFIED_IN_FLIGHT: u32 = 3;

/// Rejections in a row that suspend an access key.
const MAX_REJECTIONS: u32 = 2;

/// How long an access key is suspended: as long as SCM's own lock.
const SUSPENSION: Duration = Duration::from_secs(300);

/// What an attempt says about the credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scm) enum AuthOutcome {
    /// SCM accepted the signature.
    Accepted,
    /// SCM rejected the signature.
    Rejected,
    /// SCM rejected the signature because of its date.
    ClockSkewed,
    /// The attempt ended before SCM checked the signature, or without a response.
    Unknown,
}

impl AuthOutcome {
    /// Returns what the result of an attempt says about the credentials.
    ///
    /// SCM sends its own error codes only after the signature check. Any other response may come from an earlier stage.
    pub(in crate::scm) fn of<R>(result: &Result<R, Error>) -> Self {
        let Err(error) = result else { return Self::Accepted };
        let answer = error.answer.as_deref();
        let code = answer.and_then(|answer| answer.code.as_deref());
        match error.reason {
            Reason::UpstreamCredentials if error.clock_skew().is_some() => Self::ClockSkewed,
            Reason::UpstreamCredentials => Self::Rejected,
            _ if code.is_some_and(|code| code.starts_with("SCM.")) => Self::Accepted,
            // SCM has counted the rejection even if the body of the 401 was too large.
            _ if answer.is_some_and(|answer| answer.http_status == 401) => Self::Rejected,
            _ => Self::Unknown,
        }
    }
}

/// The guards of all access keys in use.
#[derive(Debug, Default)]
pub(in crate::scm) struct LockoutGuards(Mutex<BTreeMap<String, Arc<LockoutGuard>>>);

impl LockoutGuards {
    /// Returns the guard of an access key. All users of the access key share it.
    pub(super) fn get(&self, access_key: &str) -> Arc<LockoutGuard> {
        let mut guards = self.0.lock().expect("no panic while the lock is held");
        // Drops guards without a user, except those whose rejections SCM still counts. Access keys change rarely, so
        // that this list is always short, and the count of users is exact under the lock.
        guards.retain(|_, guard| Arc::strong_count(guard) > 1 || guard.lock().rejections > 0);
        guards.entry(access_key.to_owned()).or_default().clone()
    }
}

/// The lockout protection of one access key.
#[derive(Debug, Default)]
pub(super) struct LockoutGuard {
    state: Mutex<State>,
    /// Notified when a permit is released, and when the credentials are replaced.
    pub(super) released: Notify,
}

/// How far an access key is trusted.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Trust {
    /// SCM has not accepted a signature since the credentials were loaded.
    #[default]
    Unverified,
    /// SCM accepted the last signature.
    Verified,
    /// SCM rejected the last signature, or the clock jumped or the secret changed, so that SCM may reject the next one.
    Suspect {
        /// Whether only one request is allowed in flight.
        one_at_a_time: bool,
    },
    /// No request is sent until then; the first one after that is the probe.
    Suspended { until: Instant },
    /// The suspension is over, and the probe is in flight.
    Probing,
}

#[derive(Debug, Default)]
struct State {
    trust: Trust,
    /// Rejections in a row.
    rejections: u32,
    /// Counts all rejections. An attempt that started in an earlier epoch cannot verify the credentials.
    epoch: u64,
    in_flight: u32,
}

/// What a permit has to give back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grant {
    epoch: u64,
    probe: bool,
}

impl Grant {
    /// Returns whether the permit is the probe after a suspension.
    pub(super) fn is_probe(self) -> bool {
        self.probe
    }
}

/// The answer to a request for a permit.
pub(super) enum Admit {
    /// The permit.
    Granted(Grant),
    /// All permits are in use.
    Wait,
    /// The access key is suspended for this long.
    Suspended(Duration),
}

impl LockoutGuard {
    /// Returns a permit if one is free.
    pub(super) fn try_acquire(&self, now: Instant) -> Admit {
        self.lock().try_acquire(now)
    }

    /// Records the outcome of an attempt and releases its permit.
    pub(super) fn record(&self, outcome: AuthOutcome, grant: Grant, now: Instant) {
        self.lock().record(outcome, grant, now);
        self.released.notify_waiters();
    }

    /// Starts over with a new secret. SCM keeps counting rejections.
    pub(super) fn reset(&self) {
        self.lock().reset();
        self.released.notify_waiters();
    }

    /// Allows one request at a time until one is accepted.
    pub(super) fn reverify(&self) {
        self.lock().reverify();
    }

    /// Returns whether an outcome is needed before the access key is trusted.
    pub(super) fn is_unverified(&self) -> bool {
        self.lock().trust != Trust::Verified
    }

    /// Returns whether requests are rejected.
    pub(super) fn is_suspended(&self, now: Instant) -> bool {
        match self.lock().trust {
            Trust::Probing => true,
            Trust::Suspended { until } => now < until,
            _ => false,
        }
    }

    /// Returns whether the next request is sent.
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        !matches!(self.lock().trust, Trust::Suspended { until } if now < until)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the lock is held")
    }
}

impl State {
    fn try_acquire(&mut self, now: Instant) -> Admit {
        let probe = match self.trust {
            Trust::Suspended { until } if now < until => return Admit::Suspended(until - now),
            Trust::Probing => return Admit::Suspended(SUSPENSION),
            Trust::Suspended { .. } => {
                self.trust = Trust::Probing;
                true
            }
            _ if self.in_flight >= self.max_in_flight() => return Admit::Wait,
            _ => false,
        };
        self.in_flight += 1;
        Admit::Granted(Grant { epoch: self.epoch, probe })
    }

    fn max_in_flight(&self) -> u32 {
        match self.trust {
            Trust::Verified => u32::MAX,
            Trust::Unverified | Trust::Suspect { one_at_a_time: false } => MAX_UNVERIFIED_IN_FLIGHT,
            Trust::Suspect { one_at_a_time: true } | Trust::Suspended { .. } | Trust::Probing => 1,
        }
    }

    fn reset(&mut self) {
        self.trust = match self.rejections {
            0 => Trust::Unverified,
            _ => Trust::Suspect { one_at_a_time: true },
        };
    }

    fn reverify(&mut self) {
        if !self.is_suspended() {
            self.trust = Trust::Suspect { one_at_a_time: true };
        }
    }

    fn is_suspended(&self) -> bool {
        matches!(self.trust, Trust::Suspended { .. } | Trust::Probing)
    }

    fn record(&mut self, outcome: AuthOutcome, grant: Grant, now: Instant) {
        self.in_flight -= 1;
        let is_current = grant.epoch == self.epoch;
        // A request signed before the clock skew was known says nothing new.
        let is_rejection = outcome == AuthOutcome::Rejected || outcome == AuthOutcome::ClockSkewed && is_current;
        if is_rejection {
            self.rejections += 1;
            self.epoch += 1;
        }
        self.trust = match (self.trust, outcome) {
            (_, AuthOutcome::Accepted) if is_current => {
                if self.is_suspended() {
                    tracing::info!("access key accepted again");
                }
                self.rejections = 0;
                Trust::Verified
            }
            _ if is_rejection && self.rejections >= MAX_REJECTIONS => {
                if !self.is_suspended() {
                    tracing::error!("access key rejected twice, suspended for 5 minutes");
                }
                Trust::Suspended { until: now + SUSPENSION }
            }
            (Trust::Probing, _) if grant.probe => Trust::Suspended { until: now }, // the next request is the probe
            (suspended @ (Trust::Suspended { .. } | Trust::Probing), _) => suspended,
            (_, AuthOutcome::ClockSkewed) => Trust::Suspect { one_at_a_time: true },
            (suspect @ Trust::Suspect { .. }, AuthOutcome::Rejected) => suspect,
            (Trust::Unverified | Trust::Verified, AuthOutcome::Rejected) => Trust::Suspect { one_at_a_time: false },
            (unchanged, AuthOutcome::Accepted | AuthOutcome::Unknown) => unchanged,
        };
    }
}
