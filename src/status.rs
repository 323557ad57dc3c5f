//! THE table: every [`Reason`] as a gRPC status with details.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status, metadata::MetadataValue};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::error::{Error, Reason, Violation};

/// The `domain` of every `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "scm-gateway";

/// The metadata key under which SCM's id of the request goes back, on success too.
pub const UPSTREAM_REQUEST_ID: &str = "x-upstream-request-id";

/// No wait told to a caller is longer, whatever SCM asks for.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Fields named in one status at most: a status travels in headers, and clients bound those, some at 8 KiB.
const MAX_VIOLATIONS: usize = 32;

/// The status code, the reason's name and the message of a reason. A message is fit for a log: it says what happened
/// and what to do, and holds nothing of the request, the answer or the key.
pub const fn row(reason: Reason) -> (Code, &'static str, &'static str) {
    use Reason as R;
    match reason {
        R::InvalidRequest => (
            Code::InvalidArgument,
            "INVALID_REQUEST",
            "the request is not valid: the details name the fields, or SCM's code the reason",
        ),
        R::CallerNotAllowed => {
            (Code::PermissionDenied, "CALLER_NOT_ALLOWED", "this caller may not use the project: check project_id")
        }
        R::CertificateNotFound => (
            Code::NotFound,
            "CERTIFICATE_NOT_FOUND",
            "SCM knows no such certificate in this project: check cert_id and project_id",
        ),
        R::CertificateNotOwned => {
            (Code::PermissionDenied, "CERTIFICATE_NOT_OWNED", "the certificate belongs to another tenant")
        }
        R::CertificateState => (
            Code::FailedPrecondition,
            "CERTIFICATE_STATE",
            "the certificate's type or state does not allow this; calling again does not help",
        ),
        R::UpstreamConflict => {
            (Code::Aborted, "UPSTREAM_CONFLICT", "the certificate was changed meanwhile: read it, then decide")
        }
        R::UpstreamAccount => (
            Code::FailedPrecondition,
            "UPSTREAM_ACCOUNT",
            "the cloud account does not allow this: subscription, permission or project need its owner's attention",
        ),
        R::UpstreamCredentials => (
            Code::Internal,
            "UPSTREAM_CREDENTIALS",
            "the gateway has no key that SCM takes, which is not the caller's fault: the gateway's operator has to act",
        ),
        R::UpstreamConfiguration => (
            Code::Internal,
            "UPSTREAM_CONFIGURATION",
            "SCM's endpoint does not serve this API as configured: the gateway's operator has to act",
        ),
        R::UpstreamError => (Code::Internal, "UPSTREAM_ERROR", "SCM failed to carry out the call"),
        R::UpstreamThrottled => {
            (Code::ResourceExhausted, "UPSTREAM_THROTTLED", "SCM throttles the account: call again later")
        }
        R::UpstreamUnavailable => (
            Code::Unavailable,
            "UPSTREAM_UNAVAILABLE",
            "SCM is not reachable or not available: call again with back-off",
        ),
        R::UpstreamTimeout => (Code::DeadlineExceeded, "UPSTREAM_TIMEOUT", "SCM's backend did not answer in time"),
        R::UpstreamTls => (
            Code::Unavailable,
            "UPSTREAM_TLS",
            "no trustworthy TLS connection to SCM: the gateway's operator should look",
        ),
        R::UpstreamMalformed => (Code::Internal, "UPSTREAM_MALFORMED", "SCM's answer could not be understood"),
        R::UpstreamTooLarge => (Code::Internal, "UPSTREAM_TOO_LARGE", "SCM's answer is larger than the gateway reads"),
        R::UpstreamOutcomeUnknown => (
            Code::Unknown,
            "UPSTREAM_OUTCOME_UNKNOWN",
            "the connection to SCM broke after the request was sent: the call may have been carried out",
        ),
        R::CircuitOpen => (
            Code::Unavailable,
            "CIRCUIT_OPEN",
            "SCM was not available to the last calls and is not asked for a moment: call again later",
        ),
        R::Deadline => (Code::DeadlineExceeded, "DEADLINE", "the deadline was over before SCM answered"),
        R::ShuttingDown => {
            (Code::Unavailable, "SHUTTING_DOWN", "this instance of the gateway stops: call again, another one answers")
        }
        R::Panic => (Code::Internal, "PANIC", "the gateway has a defect: its operator should look at its log"),
    }
}

/// Renders an error for the caller.
pub fn render(error: Error) -> Status {
    let (code, reason, message) = row(error.reason);
    let mut metadata = HashMap::new();
    if error.attempts > 0 {
        metadata.insert("attempts".to_owned(), error.attempts.to_string());
    }
    let mut details = ErrorDetails::new();
    let mut request_id = None;
    if let Some(answer) = error.answer {
        metadata.insert("http_status".to_owned(), answer.http_status.to_string());
        metadata.extend(answer.code.map(|code| ("upstream_code".to_owned(), code)));
        request_id = answer.request_id;
        metadata.extend(request_id.clone().map(|id| ("upstream_request_id".to_owned(), id)));
    }
    if let Some(wait) = error.retry_after {
        details.set_retry_info(Some(wait.min(MAX_WAIT)));
    }
    details.set_error_info(reason, DOMAIN, metadata);
    if !error.violations.is_empty() {
        details.set_bad_request(bad_request(error.violations));
    }
    let mut status = Status::with_error_details(code, message, details);
    if let Some(id) = request_id.and_then(|id| MetadataValue::try_from(id).ok()) {
        status.metadata_mut().insert(UPSTREAM_REQUEST_ID, id);
    }
    status
}

fn bad_request(violations: Vec<Violation>) -> Vec<FieldViolation> {
    let left_out = violations.len().saturating_sub(MAX_VIOLATIONS);
    let mut fields: Vec<_> =
        violations.into_iter().take(MAX_VIOLATIONS).map(|v| FieldViolation::new(v.field, v.description)).collect();
    if let Some(last) = fields.last().filter(|_| left_out > 0) {
        let field = last.field.split('[').next().unwrap_or_default().to_owned();
        fields.push(FieldViolation::new(field, format!("and {left_out} more that are not listed")));
    }
    fields
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic_types::StatusExt as _;

    use super::{MAX_VIOLATIONS, render};
    use crate::error::{Answer, Error, Reason, Violation};

    #[test]
    fn a_status_carries_what_is_known_and_nothing_else() {
        let answer = Answer {
            http_status: 429,
            code: Some("APIG.0308".to_owned()),
            request_id: Some("id-1".to_owned()),
            expired: false,
        };
        let retry_after = Some(Duration::from_secs(7));
        let status = render(Error { attempts: 1, retry_after, ..Error::answered(Reason::UpstreamThrottled, answer) });
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.domain.as_str(), info.reason.as_str()), ("scm-gateway", "UPSTREAM_THROTTLED"));
        let mut metadata: Vec<_> = info.metadata.iter().map(|(k, v)| format!("{k}={v}")).collect();
        metadata.sort();
        assert_eq!(metadata, ["attempts=1", "http_status=429", "upstream_code=APIG.0308", "upstream_request_id=id-1"]);
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_secs(7)));
        assert_eq!(status.metadata().get("x-upstream-request-id").unwrap(), "id-1");
    }

    #[test]
    fn a_status_stays_small_enough_for_every_client() {
        let violations = (0..10_000)
            .map(|n| Violation { field: format!("info.sans[{n}]"), description: "must be a host name" })
            .collect();
        let status = render(Error::invalid(violations));
        let fields = status.get_error_details().bad_request().unwrap().field_violations.clone();
        assert_eq!(fields.len(), MAX_VIOLATIONS + 1);
        assert_eq!(fields[MAX_VIOLATIONS].field, "info.sans");
        assert_eq!(
            fields[MAX_VIOLATIONS].description,
            format!("and {} more that are not listed", 10_000 - MAX_VIOLATIONS)
        );
        assert!(status.details().len() < 4096);
    }
}
