//! The error of a call: its reason and how far the request got. It knows nothing of gRPC; `grpc/status.rs` renders it.

use std::{fmt, time::Duration};

/// How long a caller is asked to wait after the gateway shed its call: longer than an ordinary call takes.
const OVERLOADED_WAIT: Duration = Duration::from_secs(1);

/// Why a call failed: the `reason` of `google.rpc.ErrorInfo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A field breaks a rule of the gateway or of SCM.
    InvalidRequest,
    /// The caller has no identity.
    CallerUnauthenticated,
    /// The caller is not allowed to call this method, or not for this project.
    CallerNotAllowed,
    /// The operator has disabled the method.
    MethodDisabled,
    /// SCM has no such certificate.
    CertificateNotFound,
    /// SCM has no such resource other than a certificate, such as a CSR or a product.
    ResourceNotFound,
    /// The certificate belongs to another tenant.
    CertificateNotOwned,
    /// The certificate's state does not allow the call.
    CertificateState,
    /// SCM saw a conflicting change.
    UpstreamConflict,
    /// The cloud account does not allow the call.
    UpstreamAccount,
    /// SCM rejected the gateway's credentials, or the gateway has none.
    UpstreamCredentials,
    /// The endpoint does not serve the API, or the proxy rejects the gateway.
    UpstreamConfiguration,
    /// SCM failed.
    UpstreamError,
    /// SCM throttles the account.
    UpstreamThrottled,
    /// SCM is unreachable or unavailable.
    UpstreamUnavailable,
    /// SCM answered 504, or nothing within the timeout of the attempt.
    UpstreamTimeout,
    /// There is no trustworthy TLS connection to SCM.
    UpstreamTls,
    /// SCM's response is not valid.
    UpstreamMalformed,
    /// SCM's response is larger than the limit.
    UpstreamTooLarge,
    /// The request of a call that is not idempotent was sent, and its outcome is unknown.
    UpstreamOutcomeUnknown,
    /// The circuit breaker in front of SCM is open, so nothing was sent.
    CircuitOpen,
    /// A limit of the gateway is reached.
    Overloaded,
    /// The caller's deadline or the gateway's is exceeded.
    Deadline,
    /// The gateway shut down before the call was finished.
    ShuttingDown,
    /// The gateway has a defect.
    Panic,
}

impl Reason {
    /// Returns whether the error says something about the request only, and nothing about SCM or the gateway.
    pub const fn is_of_request(self) -> bool {
        matches!(
            self,
            Self::InvalidRequest
                | Self::CallerUnauthenticated
                | Self::CallerNotAllowed
                | Self::MethodDisabled
                | Self::CertificateNotFound
                | Self::ResourceNotFound
                | Self::CertificateNotOwned
                | Self::CertificateState
                | Self::UpstreamConflict
        )
    }

    /// Returns the name that callers see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "INVALID_REQUEST",
            Self::CallerUnauthenticated => "CALLER_UNAUTHENTICATED",
            Self::CallerNotAllowed => "CALLER_NOT_ALLOWED",
            Self::MethodDisabled => "METHOD_DISABLED",
            Self::CertificateNotFound => "CERTIFICATE_NOT_FOUND",
            Self::ResourceNotFound => "RESOURCE_NOT_FOUND",
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
    /// Not one byte of the request was sent.
    NotSent,
    /// The request may have been sent and carried out: there is no response.
    MaybeSent,
    /// SCM responded.
    Answered,
}

/// A field that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The proto path, such as `info.sans[2]`.
    pub field: String,
    /// The rule, never the value.
    pub description: &'static str,
}

/// What an error response of SCM says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// The HTTP status.
    pub http_status: u16,
    /// The vendor's error code, such as `SCM.0008`.
    pub code: Option<String>,
    /// The vendor's id of the request.
    pub request_id: Option<String>,
    /// If the signature was rejected because of its date: seconds by which SCM's clock is ahead.
    pub clock_skew: Option<i64>,
}

/// The error of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What happened.
    pub reason: Reason,
    /// How far the request got.
    pub progress: Progress,
    /// The fields that the gateway rejected.
    pub violations: Vec<Violation>,
    /// SCM's response, if there was one.
    pub answer: Option<Box<Answer>>,
    /// How long to wait before a retry, if that is known: SCM's `Retry-After`, or a limit of the gateway.
    pub retry_after: Option<Duration>,
    /// The number of attempts.
    pub attempts: u32,
    /// The cause in one of a fixed set of texts, for operators: what failed on the connection to SCM, what the call waited for,
    /// or which limit was reached.
    pub cause: Option<&'static str>,
}

impl Error {
    /// Creates an error without a response.
    pub fn new(reason: Reason, progress: Progress) -> Self {
        Self { reason, progress, violations: Vec::new(), answer: None, retry_after: None, attempts: 0, cause: None }
    }

    /// Creates the error of a request with invalid fields.
    pub fn invalid(violations: Vec<Violation>) -> Self {
        Self { violations, ..Self::new(Reason::InvalidRequest, Progress::NotSent) }
    }

    /// Creates the error of a call that is not made now, with the time until a retry.
    pub fn retry_later(reason: Reason, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..Self::new(reason, Progress::NotSent) }
    }

    /// Creates the error of a call over a limit: a key of `[server]`, or a resource of the system.
    pub fn overloaded(limit: &'static str) -> Self {
        Self { cause: Some(limit), ..Self::retry_later(Reason::Overloaded, OVERLOADED_WAIT) }
    }

    /// Creates the error of a call whose deadline is exceeded before anything was sent, with the cause of the wait.
    pub fn deadline_before_send(cause: &'static str) -> Self {
        Self { cause: Some(cause), ..Self::new(Reason::Deadline, Progress::NotSent) }
    }

    /// Creates the error of a response.
    pub fn answered(reason: Reason, answer: Answer) -> Self {
        Self { answer: Some(Box::new(answer)), ..Self::new(reason, Progress::Answered) }
    }

    /// Adds what an earlier attempt says about the progress: if that attempt was sent, it may have been carried out.
    pub fn after(self, earlier: &Option<Self>) -> Self {
        let before = earlier.as_ref().map_or(Progress::NotSent, |earlier| earlier.progress);
        let progress = match (self.progress, before) {
            (Progress::NotSent, Progress::MaybeSent | Progress::Answered) => Progress::MaybeSent,
            (progress, _) => progress,
        };
        Self { progress, ..self }
    }

    /// Returns the seconds by which SCM's clock is ahead, if SCM rejected the signature because of its date.
    pub fn clock_skew(&self) -> Option<i64> {
        self.answer.as_ref()?.clock_skew
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.name())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::{Error, Progress, Reason};

    #[test]
    fn an_earlier_sent_attempt_may_have_been_carried_out() {
        let error = |progress| Error::new(Reason::Deadline, progress);
        let after = |last, before: Option<Progress>| error(last).after(&before.map(error)).progress;
        use Progress::{Answered, MaybeSent, NotSent};
        for (last, before, expected) in [
            (NotSent, None, NotSent),
            (NotSent, Some(NotSent), NotSent),
            (NotSent, Some(MaybeSent), MaybeSent),
            (NotSent, Some(Answered), MaybeSent),
            (MaybeSent, Some(NotSent), MaybeSent),
            (Answered, Some(MaybeSent), Answered),
        ] {
            assert_eq!(after(last, before), expected, "{last:?} after {before:?}");
        }
    }
}
