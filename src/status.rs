//! THE table: every [`Reason`] as a gRPC status with details.

use std::{collections::HashMap, time::Duration};

use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::error::{Error, Progress, Reason, Violation};

/// The `domain` of every `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "scm-gateway";

/// The metadata key under which SCM's id of the request goes back, on success too.
const UPSTREAM_REQUEST_ID: &str = "x-upstream-request-id";

/// How long gRPC's own libraries pause before they make a call again, in milliseconds; negative if they are not to. See
/// gRFC A6.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// No wait told to a caller is longer, whatever SCM asks for.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Fields named in one status at most: a status travels in headers, and clients bound those, some at 8 KiB.
const MAX_VIOLATIONS: usize = 32;

/// The status code and the message of a reason. A message is fit for a log: it says what happened and what to do, and
/// holds nothing of the request, the answer or the key.
const fn row(reason: Reason) -> (Code, &'static str) {
    use Reason as R;
    match reason {
        R::InvalidRequest => (
            Code::InvalidArgument,
            "the request is not valid: BadRequest names the fields; without it SCM refused, and upstream_code, if any, says why",
        ),
        R::CallerUnauthenticated => (
            Code::Unauthenticated,
            "nothing tells who calls: show a client certificate with one URI SAN, or with DNS SANs, to the gateway or to its sidecar",
        ),
        R::CallerNotAllowed => (
            Code::PermissionDenied,
            "this method is not for this caller, or not for this project: check project_id, and the gateway's list of callers if it has one",
        ),
        R::CertificateNotFound => (
            Code::NotFound,
            "SCM knows no such certificate in this project, or holds nothing saved for it: check cert_id and project_id",
        ),
        R::CertificateNotOwned => (Code::PermissionDenied, "the certificate belongs to another tenant: check cert_id"),
        R::CertificateState => (
            Code::FailedPrecondition,
            "the certificate's type or state does not allow this; calling again does not help",
        ),
        R::UpstreamConflict => (Code::Aborted, "the certificate was changed meanwhile: read it, then decide"),
        R::UpstreamAccount => (
            Code::FailedPrecondition,
            "the cloud account does not allow this: subscription, permission or project need its owner's attention",
        ),
        R::UpstreamCredentials => (
            Code::Internal,
            "the gateway has no key that SCM takes, which is not the caller's fault: the gateway's operator has to act",
        ),
        R::UpstreamConfiguration => {
            (Code::Internal, "the gateway is not configured for the way to SCM: the gateway's operator has to act")
        }
        R::UpstreamError => (
            Code::Internal,
            "SCM failed: the outcome is unknown, and calls that are idempotent can be made again later",
        ),
        R::UpstreamThrottled => (Code::ResourceExhausted, "SCM throttles the account: call again later"),
        R::UpstreamUnavailable => {
            (Code::Unavailable, "SCM is not available, or the connection to it broke: call again with back-off")
        }
        R::UpstreamTimeout => {
            (Code::DeadlineExceeded, "SCM's backend did not answer in time: call again with back-off")
        }
        R::UpstreamTls => {
            (Code::Unavailable, "no trustworthy TLS connection to SCM: the gateway's operator should look")
        }
        R::UpstreamMalformed => {
            (Code::Internal, "SCM's answer could not be understood: the gateway's operator has to act")
        }
        R::UpstreamTooLarge => {
            (Code::Internal, "SCM's answer is larger than the gateway reads: its operator has to act")
        }
        R::UpstreamOutcomeUnknown => (
            Code::Unknown,
            "the request was sent and SCM did not say what became of it: the call may have been carried out",
        ),
        R::CircuitOpen => (
            Code::Unavailable,
            "SCM was not available to the last calls and is not asked for a moment: call again later",
        ),
        R::Overloaded => (Code::ResourceExhausted, "the gateway has no room for this call now: call again later"),
        R::Deadline => (
            Code::DeadlineExceeded,
            "the time for the call, by the caller's deadline or the gateway's own bound, was too short; without attempts in ErrorInfo nothing was sent, with it the outcome is unknown",
        ),
        R::ShuttingDown => (Code::Unavailable, "this instance of the gateway stops: call again"),
        R::Panic => (Code::Internal, "the gateway has a defect: its operator should look at its log"),
    }
}

/// Renders an error for the caller.
pub fn render(error: Error) -> Status {
    let (code, message) = row(error.reason);
    let mut metadata = HashMap::new();
    // Whose time is over is told of attempts only where something was sent: it decides whether the outcome is known.
    if error.attempts > 0 && (error.reason, error.progress) != (Reason::Deadline, Progress::NotSent) {
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
    details.set_error_info(error.reason.name(), DOMAIN, metadata);
    if !error.violations.is_empty() {
        details.set_bad_request(bad_request(error.violations));
    }
    let mut status = Status::with_error_details(code, message, details);
    tell_request_id(status.metadata_mut(), request_id);
    status
}

/// Puts SCM's id of the request, if it gave one, where callers find it.
pub fn tell_request_id(metadata: &mut MetadataMap, id: Option<String>) {
    if let Some(id) = id.and_then(|id| MetadataValue::try_from(id).ok()) {
        metadata.insert(UPSTREAM_REQUEST_ID, id);
    }
}

/// Tells gRPC's own libraries, where the caller has them repeat calls, what RetryInfo tells the caller. A wait that
/// outlasts the `left` time would cost the caller this status: then they are not to wait for it.
pub fn push_back(status: &mut Status, wait: Duration, left: Option<Duration>) {
    if matches!(status.code(), Code::Unavailable | Code::ResourceExhausted) {
        let wait = wait.min(MAX_WAIT);
        let in_time = left.is_none_or(|left| wait < left);
        let millis = if in_time { wait.as_micros().div_ceil(1000) as i64 } else { -1 };
        status.metadata_mut().insert(PUSHBACK, millis.into());
    }
}

fn bad_request(violations: Vec<Violation>) -> Vec<FieldViolation> {
    let left_out = violations.len().saturating_sub(MAX_VIOLATIONS);
    let mut fields: Vec<_> =
        violations.into_iter().take(MAX_VIOLATIONS).map(|v| FieldViolation::new(v.field, v.description)).collect();
    if left_out > 0 {
        fields.push(FieldViolation::new("", format!("and {left_out} more fields that are not listed")));
    }
    fields
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic_types::StatusExt as _;

    use super::{MAX_VIOLATIONS, render};
    use crate::error::{Answer, Error, Progress, Reason, Violation};

    #[test]
    fn a_status_carries_what_is_known_and_nothing_else() {
        let answer = Answer {
            http_status: 429,
            code: Some("APIG.0308".to_owned()),
            request_id: Some("id-1".to_owned()),
            expired: None,
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
    fn whose_time_is_over_is_told_of_attempts_only_if_something_was_sent() {
        for (progress, told) in [(Progress::NotSent, None), (Progress::MaybeSent, Some("2"))] {
            let status = render(Error { attempts: 2, ..Error::new(Reason::Deadline, progress) });
            let metadata = status.get_error_details().error_info().unwrap().metadata.clone();
            assert_eq!(metadata.get("attempts").map(String::as_str), told, "{progress:?}");
        }
    }

    #[test]
    fn a_status_stays_small_enough_for_every_client() {
        let violations = (0..10_000)
            .map(|n| Violation { field: format!("info.sans[{n}]"), description: "must be a host name" })
            .collect();
        let status = render(Error::invalid(violations));
        let fields = status.get_error_details().bad_request().unwrap().field_violations.clone();
        assert_eq!(fields.len(), MAX_VIOLATIONS + 1);
        assert_eq!(
            fields[MAX_VIOLATIONS].description,
            format!("and {} more fields that are not listed", 10_000 - MAX_VIOLATIONS)
        );
        assert!(status.details().len() < 4096);
    }
}
