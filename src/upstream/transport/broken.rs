//! What went wrong on the way to SCM, sorted by what it says about the request.

use std::{error::Error as StdError, io};

use http::HeaderMap;
use hyper_util::client::legacy;
use rustix::io::Errno;

use super::connector::{NotResolved, REFUSALS, RefusedByServer};

/// What hyper-util says, whose errors for this have no name, of a proxy that answers 407, and anything else but 200.
const PROXY_WANTS_ANOTHER_PASSWORD: &str = "tunnel error: proxy authorization required";
const PROXY_REFUSES: &str = "tunnel error: unsuccessful";

/// Why no whole answer came, and what broke, in a word of ours.
#[derive(Debug)]
pub(crate) struct SendError {
    pub(crate) kind: Broken,
    pub(crate) cause: &'static str,
}

/// What no whole answer says about the request.
#[derive(Debug)]
pub(crate) enum Broken {
    /// No connection: not one byte of the request left.
    Connect,
    /// No file descriptor for one: it is the gateway that is full.
    Descriptors,
    /// No trustworthy connection, or none that the other side wanted: it has read nothing of the request.
    Tls,
    /// The proxy makes no connection for us: not one byte of the request left.
    Proxy,
    /// No answer in time. What was not begun to be sent has not left.
    Late { begun: bool },
    /// The connection broke with the request on it, perhaps after the head of the answer.
    Lost(Option<(u16, HeaderMap)>),
    /// What came is not HTTP.
    Malformed,
    /// The body is larger than it may be.
    TooLarge(u16, HeaderMap),
}

/// Sorts an error by what it says about the request. The error itself goes no further: it may print the URL.
pub(super) fn classify(error: &(dyn StdError + 'static)) -> SendError {
    let causes = causes(error);
    let of = |kind, cause| SendError { kind, cause };
    let legacy = find::<legacy::Error>(&causes);
    if find::<RefusedByServer>(&causes).is_some() {
        return of(Broken::Tls, "handshake rejected by the peer");
    }
    if legacy.is_some_and(legacy::Error::is_connect) {
        return match find::<rustls::Error>(&causes) {
            Some(tls) => of(Broken::Tls, tls_cause(tls)),
            None if causes.iter().any(|cause| is_out_of_descriptors(*cause)) => {
                of(Broken::Descriptors, "out of file descriptors")
            }
            None if causes.iter().any(|cause| is_timeout(*cause)) => {
                of(Broken::Connect, "no connection within connect_timeout")
            }
            None if causes.iter().any(|cause| cause.to_string() == PROXY_WANTS_ANOTHER_PASSWORD) => {
                of(Broken::Proxy, "proxy authorization required")
            }
            None if causes.iter().any(|cause| cause.to_string() == PROXY_REFUSES) => {
                of(Broken::Connect, "rejected by the proxy")
            }
            None => of(Broken::Connect, io_cause(&causes).unwrap_or("no connection")),
        };
    }
    match find::<hyper::Error>(&causes) {
        Some(hyper) if hyper.is_canceled() || hyper.is_closed() => of(Broken::Connect, "connection closed before use"),
        _ if legacy.is_some_and(|legacy| legacy.connect_info().is_none()) => of(Broken::Connect, "no connection"),
        Some(hyper) if hyper.is_parse() || causes.iter().any(|cause| is_bad_chunk(*cause)) => {
            of(Broken::Malformed, "invalid HTTP response")
        }
        _ => of(Broken::Lost(None), io_cause(&causes).unwrap_or("connection closed")),
    }
}

/// The same of the body of an answer, whose head came.
pub(super) fn classify_body(error: &(dyn StdError + 'static)) -> SendError {
    match classify(error) {
        malformed @ SendError { kind: Broken::Malformed, .. } => malformed,
        SendError { cause, .. } => SendError { kind: Broken::Lost(None), cause },
    }
}

fn tls_cause(error: &rustls::Error) -> &'static str {
    use rustls::{CertificateError as Certificate, Error};
    match error {
        Error::InvalidCertificate(Certificate::UnknownIssuer) => "unknown certificate issuer",
        Error::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => "certificate expired",
        Error::InvalidCertificate(Certificate::NotValidForName | Certificate::NotValidForNameContext { .. }) => {
            "certificate name mismatch"
        }
        Error::InvalidCertificate(_) => "invalid certificate",
        Error::InvalidMessage(_) => "peer does not speak TLS",
        Error::AlertReceived(alert) if REFUSALS.contains(alert) => "handshake rejected by the peer",
        _ => "TLS handshake failed",
    }
}

fn io_cause(causes: &[&(dyn StdError + 'static)]) -> Option<&'static str> {
    if find::<NotResolved>(causes).is_some() {
        return Some("name not resolved");
    }
    let io = causes.iter().rev().find_map(|cause| cause.downcast_ref::<io::Error>())?; // others may be around it
    Some(match io.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused",
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "connection reset",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "address unreachable",
        io::ErrorKind::UnexpectedEof => "connection closed",
        io::ErrorKind::TimedOut => "connection timed out",
        _ => "connection failed",
    })
}

fn is_timeout(cause: &(dyn StdError + 'static)) -> bool {
    cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

fn is_out_of_descriptors(cause: &(dyn StdError + 'static)) -> bool {
    let error = cause.downcast_ref().and_then(Errno::from_io_error);
    error.is_some_and(|error| [Errno::MFILE, Errno::NFILE].contains(&error))
}

/// Whether hyper could not make sense of a chunked body, which it does not count as parsing.
fn is_bad_chunk(cause: &(dyn StdError + 'static)) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput};
    let Some(io) = cause.downcast_ref::<io::Error>() else { return false };
    let of_tls = io.get_ref().is_some_and(|payload| payload.is::<rustls::Error>());
    !of_tls && io.raw_os_error().is_none() && matches!(io.kind(), InvalidData | InvalidInput)
}

/// The first of this type.
fn find<'a, E: StdError + 'static>(causes: &[&'a (dyn StdError + 'static)]) -> Option<&'a E> {
    causes.iter().find_map(|cause| cause.downcast_ref())
}

/// The error and everything below it. `io::Error::source` passes over its own payload, where TLS errors are.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> Vec<&'a (dyn StdError + 'static)> {
    let mut causes = vec![error];
    let mut current = error;
    while causes.len() < 32 {
        let payload = current.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        match payload.map(|payload| payload as &(dyn StdError + 'static)).or_else(|| current.source()) {
            Some(next) => current = next,
            None => break,
        }
        causes.push(current);
    }
    causes
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{NotResolved, causes, io_cause, is_out_of_descriptors};

    #[test]
    fn a_name_that_is_not_resolved_for_want_of_a_descriptor_says_so() {
        let error = |code| NotResolved(io::Error::from_raw_os_error(code));
        let (ours, theirs) = (error(24), error(111));
        let wants_one = |error| causes(error).iter().any(|cause| is_out_of_descriptors(*cause));
        assert!(wants_one(&ours) && !wants_one(&theirs));
        assert_eq!(io_cause(&causes(&theirs)), Some("name not resolved"));
    }
}
