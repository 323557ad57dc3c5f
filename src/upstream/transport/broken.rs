//! What went wrong on the way to SCM, sorted by what it says about the request.

use std::{error::Error as StdError, io};

use http::HeaderMap;
use hyper_util::client::legacy;
use rustls::AlertDescription;

/// "Too many open files", of the process or the system, errno(3).
const OUT_OF_DESCRIPTORS: [i32; 2] = [24, 23];

/// What hyper-util says, whose error for this has no name, of a proxy that answers 407.
const PROXY_REFUSES: &str = "tunnel error: proxy authorization required";

/// Why a server does not go on with a client (RFC 8446 6.2), such as one that shows no certificate.
const REFUSALS: [AlertDescription; 9] = [
    AlertDescription::AccessDenied,
    AlertDescription::BadCertificate,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateRequired,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateUnknown,
    AlertDescription::HandshakeFailure,
    AlertDescription::UnknownCA,
    AlertDescription::UnsupportedCertificate,
];

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
    /// No trustworthy connection, or none to us: whoever it was has read nothing of the request.
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
    let hyper = causes.iter().find_map(|cause| cause.downcast_ref::<hyper::Error>());
    if error.downcast_ref().is_some_and(legacy::Error::is_connect) {
        return match causes.iter().find_map(|cause| cause.downcast_ref::<rustls::Error>()) {
            Some(tls) => of(Broken::Tls, tls_cause(tls)),
            None if causes.iter().any(|cause| is_out_of_descriptors(*cause)) => {
                of(Broken::Descriptors, "out of file descriptors")
            }
            None if causes.iter().any(|cause| is_timeout(*cause)) => {
                of(Broken::Connect, "no connection within connect_timeout")
            }
            None if causes.iter().any(|cause| cause.to_string() == PROXY_REFUSES) => {
                of(Broken::Proxy, "proxy authorization required")
            }
            None => of(Broken::Connect, io_cause(&causes).unwrap_or("no connection")),
        };
    }
    if error.downcast_ref().is_some_and(|error: &legacy::Error| error.connect_info().is_none()) {
        return of(Broken::Connect, "no connection");
    }
    // With TLS 1.3 the other side says what it thinks of our handshake when that is over for us.
    if let Some(rustls::Error::AlertReceived(alert)) = causes.iter().find_map(|cause| cause.downcast_ref())
        && REFUSALS.contains(alert)
    {
        return of(Broken::Tls, "refused by the other side");
    }
    match hyper {
        Some(hyper) if hyper.is_canceled() || hyper.is_closed() => of(Broken::Connect, "closed before it was used"),
        Some(hyper) if hyper.is_parse() || causes.iter().any(|cause| is_bad_chunk(*cause)) => {
            of(Broken::Malformed, "no HTTP")
        }
        _ => of(Broken::Lost(None), io_cause(&causes).unwrap_or("connection closed")),
    }
}

fn tls_cause(error: &rustls::Error) -> &'static str {
    use rustls::{CertificateError as Certificate, Error};
    match error {
        Error::InvalidCertificate(Certificate::UnknownIssuer) => "certificate of an unknown issuer",
        Error::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => "certificate expired",
        Error::InvalidCertificate(Certificate::NotValidForName | Certificate::NotValidForNameContext { .. }) => {
            "certificate for another name"
        }
        Error::InvalidCertificate(_) => "certificate not valid",
        Error::InvalidMessage(_) => "no TLS on the other side",
        _ => "no agreement on TLS",
    }
}

fn io_cause(causes: &[&(dyn StdError + 'static)]) -> Option<&'static str> {
    // hyper-util's own error for this has no name.
    if causes.iter().any(|cause| cause.to_string() == "dns error") {
        return Some("name not resolved");
    }
    let io = causes.iter().find_map(|cause| cause.downcast_ref::<io::Error>())?;
    Some(match io.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused",
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "connection reset",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "address unreachable",
        io::ErrorKind::UnexpectedEof => "connection closed",
        io::ErrorKind::TimedOut => "connection timed out",
        _ => "connection broke",
    })
}

fn is_timeout(cause: &(dyn StdError + 'static)) -> bool {
    cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

fn is_out_of_descriptors(cause: &(dyn StdError + 'static)) -> bool {
    let code = cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    code.is_some_and(|code| OUT_OF_DESCRIPTORS.contains(&code))
}

/// Whether hyper could not make sense of a chunked body, which it does not count as parsing.
fn is_bad_chunk(cause: &(dyn StdError + 'static)) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput};
    let Some(io) = cause.downcast_ref::<io::Error>() else { return false };
    let of_tls = io.get_ref().is_some_and(|payload| payload.is::<rustls::Error>());
    !of_tls && io.raw_os_error().is_none() && matches!(io.kind(), InvalidData | InvalidInput)
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
