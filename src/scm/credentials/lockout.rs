//! Protects access keys from SCM's lockout: the trust state of each access key and its transitions.
//!
//! Rejections are counted per access key, over all projects that sign with it, because SCM counts them that way too.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    clock,
    error::{Error, Reason},
    ops::status,
    sync::{Mutex, MutexGuard, Notify},
};

/// Rejections in a row that suspend an access key.
pub(super) const MAX_REJECTIONS: u32 = 2;

/// Rejections in a row after which another secret does not end the suspension early. SCM locks after five.
const MAX_REJECTIONS_OF_ALL_SECRETS: u32 = 4;

/// How long an access key is suspended: as long as SCM's own lock.
pub(super) const SUSPENSION: Duration = Duration::from_secs(300);

/// How long the guard of an access key that is no longer used keeps its rejections, in case it is used again.
const REJECTIONS_KEPT: Duration = Duration::from_secs(60 * 60);

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
    pub(in crate::scm) fn of<R>(result: &Result<R, Error>) -> Self {
        result.as_ref().err().map_or(Self::Accepted, Self::of_failure)
    }

    /// Returns what the failure of an attempt says about the credentials.
    ///
    /// SCM sends its own error codes only after the signature check. Any other response may come from an earlier stage.
    pub(in crate::scm) fn of_failure(error: &Error) -> Self {
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

/// The guards of all access keys that are in use, or were rejected in the last hour.
#[derive(Debug, Default)]
pub(in crate::scm) struct LockoutGuards(Mutex<BTreeMap<String, Arc<LockoutGuard>>>);

impl LockoutGuards {
    /// Returns the guard of an access key. All users of the access key share it.
    pub(super) fn get(&self, access_key: &str) -> Arc<LockoutGuard> {
        let now = clock::monotonic();
        let mut guards = self.0.lock().expect("no panic while the lock is held");
        // Drops guards without a user, except those whose rejections SCM may still count. Access keys change rarely, so
        // that this list is always short, and the count of users is exact under the lock.
        guards.retain(|_, guard| Arc::strong_count(guard) > 1 || guard.lock().has_recent_rejections(now));
        guards.entry(access_key.to_owned()).or_default().clone()
    }
}

/// The lockout protection of one access key.
#[derive(Debug, Default)]
pub(super) struct LockoutGuard {
    state: Mutex<State>,
    /// Notified when a permit is released.
    pub(super) released: Notify,
}

/// How far an access key is trusted. Only a verified one has more than one request in flight.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Trust {
    /// SCM has not accepted a signature yet.
    #[default]
    Unverified,
    /// SCM accepted the last signature.
    Verified,
    /// SCM rejected the last signature, or the clock jumped, so that SCM may reject the next one.
    Suspect,
    /// No request is sent until then; the first one after that is the probe. A failed probe changes only `until`.
    Suspended { since: Instant, until: Instant },
    /// The suspension is over, and the probe is in flight.
    Probing { since: Instant },
}

#[derive(Debug, Default)]
struct State {
    trust: Trust,
    /// Rejections in a row.
    rejections: u32,
    /// When SCM rejected a signature last, of a trial or not.
    rejected_at: Option<Instant>,
    /// Counts all rejections. An attempt that started in an earlier epoch says nothing about the access key.
    epoch: u64,
    /// Counts clock jumps. An attempt that started before one does not verify the access key.
    clock_jumps: u64,
    in_flight: u32,
    /// Whether a trial is in flight.
    in_trial: bool,
    /// Whether SCM accepted the last signature, except for rejected trials.
    accepted: bool,
    /// Rejected trials of an accepted access key since then. They suspend only further trials.
    rejected_trials: u32,
    /// Whether the outcome of a trial since then is unknown: SCM may have counted a rejection.
    unknown_trial: bool,
    /// After too many rejected trials of an accepted access key, the next one starts after this time.
    trials_after: Option<Instant>,
}

/// What a permit has to give back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grant {
    epoch: u64,
    clock_jumps: u64,
    probe: bool,
    trial: bool,
}

impl Grant {
    /// Returns whether the permit is the probe after a suspension.
    pub(super) fn is_probe(self) -> bool {
        self.probe
    }
}

/// The answer to a request for a permit.
pub(super) enum Admit<T> {
    /// The permit.
    Granted(T),
    /// All permits are in use.
    Wait,
    /// The access key is suspended for this long.
    Suspended(Duration),
}

impl<T> Admit<T> {
    /// Converts the permit.
    pub(super) fn map<U>(self, convert: impl FnOnce(T) -> U) -> Admit<U> {
        match self {
            Self::Granted(permit) => Admit::Granted(convert(permit)),
            Self::Wait => Admit::Wait,
            Self::Suspended(wait) => Admit::Suspended(wait),
        }
    }
}

impl LockoutGuard {
    /// Returns a permit if one is free.
    pub(super) fn try_acquire(&self, now: Instant) -> Admit<Grant> {
        self.lock().try_acquire(now)
    }

    /// Returns a permit to try other credentials than the accepted ones of this access key, if there are any. Their
    /// rejection says nothing about the accepted ones.
    pub(super) fn try_acquire_trial(&self, now: Instant) -> Admit<Grant> {
        self.lock().try_acquire_trial(now)
    }

    /// Records the outcome of an attempt and releases its permit.
    pub(super) fn record(&self, outcome: AuthOutcome, grant: Grant, now: Instant) {
        let may_have_waiters = {
            let mut state = self.lock();
            let was_verified = state.trust == Trust::Verified;
            state.record(outcome, grant, now);
            !was_verified || grant.trial || state.trust != Trust::Verified
        };
        // Nobody waits for a permit of a verified access key, except for a trial.
        if may_have_waiters {
            self.released.notify_waiters();
        }
    }

    /// Ends the suspension, because there is another secret. SCM keeps counting rejections.
    pub(super) fn lift_suspension(&self) {
        self.lock().lift_suspension();
    }

    /// Allows one request at a time until one is accepted.
    pub(super) fn reverify(&self) {
        self.lock().reverify();
    }

    /// Returns whether an outcome is needed before the access key is trusted.
    pub(super) fn is_unverified(&self) -> bool {
        self.lock().trust != Trust::Verified
    }

    /// Returns whether SCM has accepted the access key and has not rejected it since.
    pub(super) fn is_accepted(&self) -> bool {
        self.lock().accepted
    }

    /// Returns whether the accepted secret has to reset SCM's count before another trial.
    pub(super) fn needs_acceptance(&self) -> bool {
        let state = self.lock();
        state.accepted && (state.has_rejections() || state.unknown_trial)
    }

    /// Returns whether requests are rejected.
    pub(super) fn is_suspended(&self, now: Instant) -> bool {
        matches!(self.trust(now).0, status::Trust::Suspended | status::Trust::Probing)
    }

    /// Returns how far the access key is trusted, and until when it is suspended, for the status page.
    pub(super) fn trust(&self, now: Instant) -> (status::Trust, Option<Instant>) {
        match self.lock().trust {
            Trust::Unverified => (status::Trust::Unverified, None),
            Trust::Verified => (status::Trust::Verified, None),
            Trust::Suspect => (status::Trust::Suspect, None),
            Trust::Suspended { until, .. } if now < until => (status::Trust::Suspended, Some(until)),
            Trust::Suspended { .. } => (status::Trust::ProbeDue, None),
            Trust::Probing { .. } => (status::Trust::Probing, None),
        }
    }

    /// Returns when SCM rejected a signature last.
    pub(super) fn rejected_at(&self) -> Option<Instant> {
        self.lock().rejected_at
    }

    /// Returns when the suspension started, if the access key is suspended or probed.
    pub(super) fn suspended_since(&self) -> Option<Instant> {
        self.lock().suspended_since()
    }

    /// Returns whether the next request is sent.
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        !matches!(self.lock().trust, Trust::Suspended { until, .. } if now < until)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the lock is held")
    }
}

impl State {
    fn try_acquire(&mut self, now: Instant) -> Admit<Grant> {
        let probe = match self.trust {
            Trust::Suspended { until, .. } if now < until => return Admit::Suspended(until - now),
            Trust::Probing { .. } => return Admit::Suspended(SUSPENSION),
            Trust::Suspended { since, .. } => {
                self.trust = Trust::Probing { since };
                true
            }
            Trust::Unverified | Trust::Suspect if self.in_flight > 0 => return Admit::Wait,
            Trust::Unverified | Trust::Suspect | Trust::Verified => false,
        };
        self.in_flight += 1;
        Admit::Granted(Grant { epoch: self.epoch, clock_jumps: self.clock_jumps, probe, trial: false })
    }

    fn try_acquire_trial(&mut self, now: Instant) -> Admit<Grant> {
        if let Some(after) = self.trials_after.filter(|after| now < *after) {
            return Admit::Suspended(after - now);
        }
        if self.in_trial {
            return Admit::Wait;
        }
        self.try_acquire(now).map(|grant| {
            self.in_trial = true;
            Grant { trial: true, ..grant }
        })
    }

    fn has_rejections(&self) -> bool {
        self.rejections + self.rejected_trials > 0
    }

    fn has_recent_rejections(&self, now: Instant) -> bool {
        let is_recent = |at| now.saturating_duration_since(at) < REJECTIONS_KEPT;
        self.has_rejections() && self.rejected_at.is_some_and(is_recent)
    }

    fn lift_suspension(&mut self) {
        if self.is_suspended() && self.rejections < MAX_REJECTIONS_OF_ALL_SECRETS {
            self.trust = Trust::Suspect;
        }
    }

    fn reverify(&mut self) {
        if !self.is_suspended() {
            self.trust = Trust::Suspect;
            self.clock_jumps += 1;
        }
    }

    fn is_suspended(&self) -> bool {
        self.suspended_since().is_some()
    }

    /// Returns when the suspension started, which lasts until a probe is accepted.
    fn suspended_since(&self) -> Option<Instant> {
        match self.trust {
            Trust::Suspended { since, .. } | Trust::Probing { since } => Some(since),
            Trust::Unverified | Trust::Verified | Trust::Suspect => None,
        }
    }

    fn record(&mut self, outcome: AuthOutcome, grant: Grant, now: Instant) {
        self.in_flight -= 1;
        self.in_trial &= !grant.trial;
        if grant.trial && self.accepted && matches!(outcome, AuthOutcome::Rejected | AuthOutcome::Unknown) {
            return self.record_failed_trial(outcome, now);
        }
        let is_current = grant.epoch == self.epoch;
        // A request signed before the clock skew was known says nothing new.
        let is_rejection = outcome == AuthOutcome::Rejected || outcome == AuthOutcome::ClockSkewed && is_current;
        if is_rejection {
            self.rejected_at = Some(now);
            self.rejections += 1;
            self.epoch += 1;
        }
        self.accepted &= outcome != AuthOutcome::Rejected;
        self.trust = match (self.trust, outcome) {
            (_, AuthOutcome::Accepted) if is_current => {
                if self.is_suspended() {
                    tracing::info!("access key accepted again");
                }
                self.accepted = true;
                self.rejections = 0;
                self.rejected_trials = 0;
                self.unknown_trial = false;
                self.trials_after = None;
                if grant.clock_jumps == self.clock_jumps { Trust::Verified } else { Trust::Suspect }
            }
            _ if is_rejection && self.rejections >= MAX_REJECTIONS => {
                if !self.is_suspended() {
                    tracing::error!("access key rejected twice, suspended for 5 minutes");
                }
                self.accepted = false;
                Trust::Suspended { since: self.suspended_since().unwrap_or(now), until: now + SUSPENSION }
            }
            (Trust::Probing { since }, _) if grant.probe => Trust::Suspended { since, until: now }, // the next request probes
            (suspended @ (Trust::Suspended { .. } | Trust::Probing { .. }), _) => suspended,
            (_, AuthOutcome::ClockSkewed | AuthOutcome::Rejected) => Trust::Suspect,
            (unchanged, AuthOutcome::Accepted | AuthOutcome::Unknown) => unchanged,
        };
    }

    /// Records that other credentials than the accepted ones were rejected, or perhaps rejected.
    fn record_failed_trial(&mut self, outcome: AuthOutcome, now: Instant) {
        match outcome {
            AuthOutcome::Rejected => {
                self.rejected_at = Some(now);
                self.rejected_trials += 1;
            }
            _ => self.unknown_trial = true,
        }
        if self.rejected_trials >= MAX_REJECTIONS_OF_ALL_SECRETS {
            self.trials_after = Some(now + SUSPENSION);
        }
    }
}
