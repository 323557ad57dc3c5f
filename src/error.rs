//! What went wrong with a call and how far its request got. Knows nothing of gRPC: `status.rs` renders it.

use std::time::Duration;

/// How long a caller is asked to wait who found no room: as long as an ordinary call takes, and some.
const OVERLOADED: Duration = Duration::from_secs(1);

/// Why a call failed: the `reason` of `google.rpc.ErrorInfo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A field breaks its rule, by our check or by SCM's.
    InvalidRequest,
    /// Nothing tells who calls.
    CallerUnauthenticated,
    /// The caller may not call this method, or not for this project.
    CallerNotAllowed,
    /// SCM knows no such certificate.
    CertificateNotFound,
    /// The certificate belongs to another tenant.
    CertificateNotOwned,
    /// The certificate is in a state that does not allow the call.
    CertificateState,
    /// SCM saw a conflicting change.
    UpstreamConflict,
    /// The cloud account does not allow the call.
    UpstreamAccount,
    /// The gateway's own key was refused, or it has none.
    UpstreamCredentials,
    /// The gateway is not configured for the way to SCM: its endpoint has no such API, or the proxy lets nothing through.
    UpstreamConfiguration,
    /// SCM failed.
    UpstreamError,
    /// SCM throttles the account.
    UpstreamThrottled,
    /// SCM is not reachable or says that it is not available.
    UpstreamUnavailable,
    /// SCM says that its backend took too long.
    UpstreamTimeout,
    /// No trustworthy TLS connection to SCM.
    UpstreamTls,
    /// SCM's answer is none.
    UpstreamMalformed,
    /// SCM's answer is larger than the gateway reads.
    UpstreamTooLarge,
    /// The request of a call that may not be repeated was sent, and no answer says what became of it.
    UpstreamOutcomeUnknown,
    /// The circuit in front of SCM is open: nothing is sent.
    CircuitOpen,
    /// The gateway has no room for the call: too many in flight, of all, of a caller or to a project, or too much beside them.
    Overloaded,
    /// The caller's deadline or the gateway's is over.
    Deadline,
    /// The gateway stops before the call is finished.
    ShuttingDown,
    /// The gateway has a defect.
    Panic,
}

impl Reason {
    /// The word that callers see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "INVALID_REQUEST",
            Self::CallerUnauthenticated => "CALLER_UNAUTHENTICATED",
            Self::CallerNotAllowed => "CALLER_NOT_ALLOWED",
            Self::CertificateNotFound => "CERTIFICATE_NOT_FOUND",
            Self::CertificateNotOwned => "CERTIFICATE_NOT_OWNED",
            Self::CertificateState => "CERTIFICATE_STATE",
            Self::UpstreamConflict => "UPSTREAM_CONFLICT",
            Self::UpstreamAccount => "UPSTREAM_ACCOUNT",
            Self::UpstreamCredentials => "UPSTREAM_CREDENTIALS",
            Self::UpstreamConfiguration => "UPSTREAM_CONFIGURATION",
            Self::UpstreamError => "UPSTREAM_ERROR",
            Self::UpstreamThrottled => "UPSTREAM_THROTTLED",
            Self::UpstreamUnavailable => "UPSTREAM_UNAVAILABLE",
            Self::UpstreamTimeout => "UPSTREAM_TIMEOUT",
            Self::UpstreamTls => "UPSTREAM_TLS",
            Self::UpstreamMalformed => "UPSTREAM_MALFORMED",
            Self::UpstreamTooLarge => "UPSTREAM_TOO_LARGE",
            Self::UpstreamOutcomeUnknown => "UPSTREAM_OUTCOME_UNKNOWN",
            Self::CircuitOpen => "CIRCUIT_OPEN",
            Self::Overloaded => "OVERLOADED",
            Self::Deadline => "DEADLINE",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::Panic => "PANIC",
        }
    }
}

/// How far a request got before the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Provably not one byte of it reached SCM.
    NotSent,
    /// It was sent, at least in part, and no answer came: it may have been carried out.
    MaybeSent,
    /// SCM answered.
    Answered,
}

/// One field that breaks its rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The proto path, such as `info.sans[2]`.
    pub field: String,
    /// The rule, never the value.
    pub description: &'static str,
}

/// What SCM's answer says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// The HTTP status.
    pub http_status: u16,
    /// The vendor's error code, such as `SCM.0008`.
    pub code: Option<String>,
    /// The vendor's id of the request.
    pub request_id: Option<String>,
    /// Where the signature was refused for its date alone: seconds by which the answer's own date is ahead of our clock.
    pub expired: Option<i64>,
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What happened.
    pub reason: Reason,
    /// How far the request got.
    pub progress: Progress,
    /// The fields refused by the gateway.
    pub violations: Vec<Violation>,
    /// SCM's answer, where there was one.
    pub answer: Option<Box<Answer>>,
    /// How long to wait before the call is made again, where that is known: SCM's `Retry-After`, or our own bound.
    pub retry_after: Option<Duration>,
    /// How many requests were sent or tried.
    pub attempts: u32,
    /// What broke on the way to SCM, what was waited for, or which limit was reached, in a word of ours: for the operator,
    /// who has to find it.
    pub cause: Option<&'static str>,
}

impl Error {
    /// An error without an answer.
    pub fn new(reason: Reason, progress: Progress) -> Self {
        let (violations, answer, retry_after) = (Vec::new(), None, None);
        Self { reason, progress, violations, answer, retry_after, attempts: 0, cause: None }
    }

    /// Fields that the gateway refuses.
    pub fn invalid(violations: Vec<Violation>) -> Self {
        Self { violations, ..Self::new(Reason::InvalidRequest, Progress::NotSent) }
    }

    /// A call that is not made for now, and how long.
    pub fn held_back(reason: Reason, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..Self::new(reason, Progress::NotSent) }
    }

    /// A call that finds no room here, for this limit: a key of `[server]`, or what the system gives no more of.
    pub fn overloaded(limit: &'static str) -> Self {
        Self { cause: Some(limit), ..Self::held_back(Reason::Overloaded, OVERLOADED) }
    }

    /// A call whose time was over before anything was sent, and what it waited for.
    pub fn too_late(cause: &'static str) -> Self {
        Self { cause: Some(cause), ..Self::new(Reason::Deadline, Progress::NotSent) }
    }

    /// An answer that is an error.
    pub fn answered(reason: Reason, answer: Answer) -> Self {
        Self { answer: Some(Box::new(answer)), ..Self::new(reason, Progress::Answered) }
    }

    /// The same, where an attempt before it has failed: what was sent then may have been carried out.
    pub fn after(self, failed: &Option<Self>) -> Self {
        let before = failed.as_ref().map_or(Progress::NotSent, |failed| failed.progress);
        let progress = match (self.progress, before) {
            (Progress::NotSent, Progress::MaybeSent | Progress::Answered) => Progress::MaybeSent,
            (progress, _) => progress,
        };
        Self { progress, ..self }
    }

    /// If SCM refused the signature for its date: seconds by which SCM's clock is ahead of ours.
    pub fn expired(&self) -> Option<i64> {
        self.answer.as_ref()?.expired
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, Progress, Reason};

    #[test]
    fn what_was_sent_before_may_have_been_carried_out_though_the_last_attempt_was_not_sent() {
        let error = |progress| Error::new(Reason::Deadline, progress);
        let after = |last, before: Option<Progress>| error(last).after(&before.map(error)).progress;
        use Progress::{Answered, MaybeSent, NotSent};
        for (last, before, told) in [
            (NotSent, None, NotSent),
            (NotSent, Some(NotSent), NotSent),
            (NotSent, Some(MaybeSent), MaybeSent),
            (NotSent, Some(Answered), MaybeSent),
            (MaybeSent, Some(NotSent), MaybeSent),
            (Answered, Some(MaybeSent), Answered),
        ] {
            assert_eq!(after(last, before), told, "{last:?} after {before:?}");
        }
    }
}
