//! The status table: every [`Reason`] as a gRPC status with details.

use std::{collections::HashMap, error::Error as _, fmt::Write as _, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Response};
use tonic::{Code, Status, metadata::MetadataMap};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::error::{Error, Progress, Reason, Violation};

/// The `domain` of every `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "scm-gateway";

/// The response metadata key of SCM's request id, on success and on failure.
pub(super) static UPSTREAM_REQUEST_ID: HeaderName = HeaderName::from_static("x-upstream-request-id");

/// The trailer that tells gRPC libraries how many milliseconds to wait before a retry, or not to retry if it is negative
/// (gRFC A6).
const RETRY_PUSHBACK: &str = "grpc-retry-pushback-ms";

/// The longest wait that a caller is asked for, whatever SCM asks for.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The most fields that one status names. A status travels in headers, which some clients limit to 8 KiB.
const MAX_VIOLATIONS: usize = 32;

/// The longest message in bytes.
const MAX_MESSAGE: usize = 1000;

/// Returns the name of a code, in upper case.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Returns the status code and the message of a reason.
///
/// A message says what happened and what to do. It is fit for a log: it holds nothing of the request, the response or the
/// credentials.
const fn code_and_message(reason: Reason) -> (Code, &'static str) {
    use Reason as R;
    match reason {
        R::InvalidRequest => (Code::InvalidArgument, "SCM rejected the request as invalid: change the request"),
        R::CallerUnauthenticated => (
            Code::Unauthenticated,
            "no caller identity: present a client certificate with exactly one URI SAN, or with DNS SANs",
        ),
        R::CallerNotAllowed => (
            Code::PermissionDenied,
            "method or project not allowed for this caller, or project not configured: check project_id, \
             or ask the gateway's operator",
        ),
        R::CertificateNotFound => (
            Code::NotFound,
            "no such certificate in this project, or nothing saved for it: check cert_id and project_id",
        ),
        R::MethodDisabled => (
            Code::Unimplemented,
            "the gateway's operator has disabled this method: ask for it, or call another gateway",
        ),
        R::ResourceNotFound => (Code::NotFound, "no such resource in this project: check its id and project_id"),
        R::CertificateNotOwned => (Code::PermissionDenied, "the certificate belongs to another tenant: check cert_id"),
        R::CertificateState => {
            (Code::FailedPrecondition, "the certificate's type or state does not allow this call: do not retry")
        }
        R::UpstreamConflict => (Code::Aborted, "the certificate was changed concurrently: read it, then decide"),
        R::UpstreamAccount => (
            Code::FailedPrecondition,
            "the cloud account does not allow this call: its owner has to check subscription, permissions and project",
        ),
        R::UpstreamCredentials => {
            (Code::Internal, "the gateway has no credentials that SCM accepts: the gateway's operator has to act")
        }
        R::UpstreamConfiguration => (
            Code::Internal,
            "the gateway's endpoint or proxy for SCM is misconfigured: the gateway's operator has to act",
        ),
        R::UpstreamError => {
            (Code::Internal, "SCM failed and the outcome is unknown: retry later if the method is idempotent")
        }
        R::UpstreamThrottled => {
            (Code::ResourceExhausted, "SCM throttles the account: retry after the delay in RetryInfo, or with backoff")
        }
        R::UpstreamUnavailable => {
            (Code::Unavailable, "SCM is unavailable or the connection to it failed: retry with backoff")
        }
        R::UpstreamTimeout => {
            (Code::DeadlineExceeded, "SCM did not answer in time: retry with backoff if the method is idempotent")
        }
        R::UpstreamTls => (
            Code::Unavailable,
            "no trustworthy TLS connection to SCM: retry with backoff, and tell the gateway's operator if it lasts",
        ),
        R::UpstreamMalformed => (
            Code::Internal,
            "SCM's response is not valid and the outcome is unknown: the gateway's operator has to act",
        ),
        R::UpstreamTooLarge => (
            Code::Internal,
            "SCM's response is larger than 1 MiB and the outcome is unknown: the gateway's operator has to act",
        ),
        R::UpstreamOutcomeUnknown => {
            (Code::Unknown, "the request was sent and may have been carried out: read the state, then decide")
        }
        R::CircuitOpen => (
            Code::Unavailable,
            "SCM was unavailable for the last calls of this project: retry after the delay in RetryInfo",
        ),
        R::Overloaded => (Code::ResourceExhausted, "the gateway is at its limit: retry after the delay in RetryInfo"),
        R::Deadline => (
            Code::DeadlineExceeded,
            "the caller's deadline or the gateway's limit was exceeded: with attempts in ErrorInfo, the request may have \
             been carried out; without, a retry with more time may help",
        ),
        R::ShuttingDown => (Code::Unavailable, "this gateway instance closes the connection: retry on another one"),
        R::Panic => (Code::Internal, "the gateway has a defect: the gateway's operator has to check its log"),
    }
}

/// Returns the message of an error: the violations, or the message of the reason and SCM's error code.
fn message(error: &Error) -> String {
    let (_, message) = code_and_message(error.reason);
    if !error.violations.is_empty() {
        return violations_message(&error.violations);
    }
    match error.answer.as_deref() {
        None => message.to_owned(),
        Some(answer) => match answer.code.as_deref().filter(|code| is_vendor_code(code)) {
            Some(code) => format!("{message} ({code})"),
            None => format!("{message} (HTTP {})", answer.http_status),
        },
    }
}

/// Returns whether a code has the form of the vendor's codes, such as `SCM.0010`. Other text of a response stays out of
/// messages.
fn is_vendor_code(code: &str) -> bool {
    code.split_once('.').is_some_and(|(service, number)| {
        service.bytes().all(|b| b.is_ascii_uppercase()) && number.bytes().all(|b| b.is_ascii_digit())
    })
}

/// Returns `invalid request: FIELD: RULE; FIELD: RULE; and N more`, with as many fields as fit.
fn violations_message(violations: &[Violation]) -> String {
    const REST: usize = "; and 4294967295 more".len();
    let mut message = "invalid request".to_owned();
    for (named, Violation { field, description }) in violations.iter().enumerate() {
        let separator = if named == 0 { ": " } else { "; " };
        if message.len() + separator.len() + field.len() + 2 + description.len() + REST > MAX_MESSAGE {
            let _ = write!(message, "{separator}and {} more", violations.len() - named);
            break;
        }
        let _ = write!(message, "{separator}{field}: {description}");
    }
    message
}

/// Renders an error as a status with details.
pub fn render(error: &Error) -> Status {
    let (code, _) = code_and_message(error.reason);
    let mut metadata = HashMap::new();
    // With DEADLINE, `attempts` tells the caller that the outcome is unknown, so it is left out if nothing was sent.
    if error.attempts > 0 && (error.reason, error.progress) != (Reason::Deadline, Progress::NotSent) {
        metadata.insert("attempts".to_owned(), error.attempts.to_string());
    }
    let mut details = ErrorDetails::new();
    let mut request_id = None;
    if let Some(answer) = error.answer.as_deref() {
        metadata.insert("http_status".to_owned(), answer.http_status.to_string());
        metadata.extend(answer.code.clone().map(|code| ("upstream_code".to_owned(), code)));
        request_id = answer.request_id.clone();
        metadata.extend(request_id.clone().map(|id| ("upstream_request_id".to_owned(), id)));
    }
    if let Some(wait) = error.retry_after {
        details.set_retry_info(Some(wait.min(MAX_WAIT)));
    }
    details.set_error_info(error.reason.name(), DOMAIN, metadata);
    if !error.violations.is_empty() {
        details.set_bad_request(bad_request(&error.violations));
    }
    let mut status = Status::with_error_details(code, message(error), details);
    insert_request_id(status.metadata_mut(), request_id);
    status
}

/// Wraps an error for its way through tonic. The render layer replaces this status by the rendered one.
pub(super) fn carry(error: Error) -> Status {
    let mut status = Status::new(Code::Unknown, "");
    status.set_source(Arc::new(error));
    status
}

/// Returns the status that tonic or the render layer has put into a response.
pub(super) fn of_response<B>(response: &Response<B>) -> Option<&Status> {
    response.extensions().get()
}

/// Returns the error that a status was made from, if it is one of the gateway's own.
pub(super) fn source(status: &Status) -> Option<&Error> {
    status.source()?.downcast_ref()
}

/// Inserts SCM's request id into the response metadata, if SCM sent one.
pub fn insert_request_id(metadata: &mut MetadataMap, id: Option<String>) {
    if let Some(id) = id.and_then(|id| HeaderValue::try_from(id).ok()) {
        metadata.as_mut().insert(&UPSTREAM_REQUEST_ID, id);
    }
}

/// Tells gRPC libraries with a retry policy what RetryInfo tells the caller. A wait that exceeds the `remaining` time would
/// cost the caller this status, so then the library must not retry.
pub fn set_retry_pushback(status: &mut Status, wait: Duration, remaining: Option<Duration>) {
    if matches!(status.code(), Code::Unavailable | Code::ResourceExhausted) {
        let wait = wait.min(MAX_WAIT);
        let in_time = remaining.is_none_or(|remaining| wait < remaining);
        let millis = if in_time { wait.as_micros().div_ceil(1000) as i64 } else { -1 };
        status.metadata_mut().insert(RETRY_PUSHBACK, millis.into());
    }
}

fn bad_request(violations: &[Violation]) -> Vec<FieldViolation> {
    let named = violations.iter().take(MAX_VIOLATIONS);
    let mut fields: Vec<_> = named.map(|v| FieldViolation::new(v.field.clone(), v.description)).collect();
    let left_out = violations.len().saturating_sub(MAX_VIOLATIONS);
    if left_out > 0 {
        fields.push(FieldViolation::new("", format!("and {left_out} more fields that are not listed")));
    }
    fields
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Code;
    use tonic_types::StatusExt as _;

    use super::{MAX_MESSAGE, MAX_VIOLATIONS, code_and_message, render};
    use crate::{
        error::{Answer, Error, Progress, Reason, Violation},
        watch::may_pass,
    };

    /// The contract of WatchCertificate names statuses, and the module `watch` knows only reasons.
    #[test]
    fn a_watch_outlives_errors_with_codes_that_may_pass() {
        use Reason as R;
        for reason in [
            R::InvalidRequest,
            R::CallerUnauthenticated,
            R::CallerNotAllowed,
            R::MethodDisabled,
            R::CertificateNotFound,
            R::ResourceNotFound,
            R::CertificateNotOwned,
            R::CertificateState,
            R::UpstreamConflict,
            R::UpstreamAccount,
            R::UpstreamCredentials,
            R::UpstreamConfiguration,
            R::UpstreamError,
            R::UpstreamThrottled,
            R::UpstreamUnavailable,
            R::UpstreamTimeout,
            R::UpstreamTls,
            R::UpstreamMalformed,
            R::UpstreamTooLarge,
            R::UpstreamOutcomeUnknown,
            R::CircuitOpen,
            R::Overloaded,
            R::Deadline,
            R::ShuttingDown,
            R::Panic,
        ] {
            let (code, _) = code_and_message(reason);
            let passes = matches!(code, Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted);
            assert_eq!(may_pass(reason), passes || reason == R::UpstreamError, "{reason:?}");
        }
    }

    #[test]
    fn a_status_has_the_details_that_are_known() {
        let answer = Answer {
            http_status: 429,
            code: Some("APIG.0308".to_owned()),
            request_id: Some("id-1".to_owned()),
            clock_skew: None,
        };
        let retry_after = Some(Duration::from_secs(7));
        let status = render(&Error { attempts: 1, retry_after, ..Error::answered(Reason::UpstreamThrottled, answer) });
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
    fn deadline_has_attempts_only_if_something_was_sent() {
        for (progress, attempts) in [(Progress::NotSent, None), (Progress::MaybeSent, Some("2"))] {
            let status = render(&Error { attempts: 2, ..Error::new(Reason::Deadline, progress) });
            let metadata = status.get_error_details().error_info().unwrap().metadata.clone();
            assert_eq!(metadata.get("attempts").map(String::as_str), attempts, "{progress:?}");
        }
    }

    #[test]
    fn a_status_is_small_enough_for_every_client() {
        let violations = (0..10_000)
            .map(|n| Violation { field: format!("info.sans[{n}]"), description: "must be a host name" })
            .collect();
        let status = render(&Error::invalid(violations));
        let fields = status.get_error_details().bad_request().unwrap().field_violations.clone();
        assert_eq!(fields.len(), MAX_VIOLATIONS + 1);
        let left_out = format!("and {} more fields that are not listed", 10_000 - MAX_VIOLATIONS);
        assert_eq!((fields[MAX_VIOLATIONS].field.as_str(), &fields[MAX_VIOLATIONS].description), ("", &left_out));
        assert!(status.details().len() < 4096);
        assert!(status.message().len() <= MAX_MESSAGE && status.message().ends_with(" more"), "{}", status.message());
    }

    #[test]
    fn the_message_names_the_violations() {
        let violation = |field: &str, description| Violation { field: field.to_owned(), description };
        let one = vec![violation("cert_id", "is required")];
        let two = vec![violation("cert_id", "is required"), violation("info.domain", "must be a host name")];
        assert_eq!(render(&Error::invalid(one)).message(), "invalid request: cert_id: is required");
        let message = "invalid request: cert_id: is required; info.domain: must be a host name";
        assert_eq!(render(&Error::invalid(two)).message(), message);
        let long = (0..100).map(|_| violation("info.sans[0]", "must be a host name")).collect();
        let status = render(&Error::invalid(long));
        assert!(status.message().ends_with("; info.sans[0]: must be a host name; and 73 more"), "{}", status.message());
    }

    #[test]
    fn the_message_has_the_code_or_the_http_status_of_scm() {
        for (code, expected) in [
            (Some("SCM.0010"), "the certificate's type or state does not allow this call: do not retry (SCM.0010)"),
            (None, "the certificate's type or state does not allow this call: do not retry (HTTP 412)"),
            (Some("13212345678"), "the certificate's type or state does not allow this call: do not retry (HTTP 412)"),
            (Some("db.7"), "the certificate's type or state does not allow this call: do not retry (HTTP 412)"),
        ] {
            let answer = Answer { http_status: 412, code: code.map(str::to_owned), ..Answer::default() };
            assert_eq!(render(&Error::answered(Reason::CertificateState, answer)).message(), expected);
        }
        let local = Error::retry_later(Reason::CircuitOpen, Duration::from_secs(1));
        assert!(render(&local).message().ends_with("retry after the delay in RetryInfo"));
    }
}
