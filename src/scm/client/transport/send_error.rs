//! Classifies the failures of sending a request by what they say about the request.

use std::{error::Error as StdError, io};

use http::HeaderMap;
use hyper_util::client::legacy;
use rustix::io::Errno;

use super::{
    connector::{NotResolved, REJECTIONS, RejectedByServer},
    tunnel::TunnelError,
};

/// The status and the headers of a response.
pub(in crate::scm) type Head = Box<(u16, HeaderMap)>;

/// Why there is no whole response. The cause is one of a fixed set of texts.
#[derive(Debug)]
pub(in crate::scm) struct SendError {
    pub(in crate::scm) kind: SendErrorKind,
    pub(in crate::scm) cause: &'static str,
}

/// Why a request has no complete response, and whether it was sent.
#[derive(Debug)]
pub(in crate::scm) enum SendErrorKind {
    /// The URL is longer than hyper sends, so it was not sent.
    Url,
    /// There was no connection: not one byte of the request was sent.
    Connect,
    /// There was no file descriptor for a connection: the gateway is at its limit.
    FileLimit,
    /// The handshake failed, or the server rejected the client in its handshake: it has not read the request.
    Tls,
    /// The proxy opened no tunnel: not one byte of the request was sent.
    Proxy,
    /// The deadline was exceeded. `sent` tells whether the write of the request had started.
    Timeout { sent: bool },
    /// The connection failed after the write started, perhaps after the head of the response.
    ConnectionLost(Option<Head>),
    /// The response is not HTTP.
    Malformed,
    /// The body is larger than the limit.
    TooLarge(Head),
}

impl SendError {
    fn new(kind: SendErrorKind, cause: &'static str) -> Self {
        Self { kind, cause }
    }
}

/// Classifies an error of hyper's client. The error itself is dropped, because its display may show the URL.
pub(super) fn classify(error: &(dyn StdError + 'static)) -> SendError {
    let causes = causes(error);
    let legacy = find::<legacy::Error>(&causes);
    if find::<RejectedByServer>(&causes).is_some() {
        SendError::new(SendErrorKind::Tls, "handshake rejected by the peer")
    } else if legacy.is_some_and(legacy::Error::is_connect) {
        classify_connect(&causes)
    } else {
        classify_exchange(&causes, legacy.is_some_and(|legacy| legacy.connect_info().is_none()))
    }
}

/// Classifies the failure to open a connection.
fn classify_connect(causes: &[&(dyn StdError + 'static)]) -> SendError {
    use SendErrorKind::{Connect, FileLimit, Proxy, Tls};
    if let Some(tls) = find::<rustls::Error>(causes) {
        SendError::new(Tls, tls_cause(tls))
    } else if causes.iter().any(|cause| is_file_limit(*cause)) {
        SendError::new(FileLimit, "out of file descriptors")
    } else if causes.iter().any(|cause| is_timeout(*cause)) {
        SendError::new(Connect, "no connection within connect_timeout")
    } else if let Some(TunnelError::Unauthorized) = find(causes) {
        SendError::new(Proxy, "proxy authorization required")
    } else if let Some(TunnelError::Rejected) = find(causes) {
        SendError::new(Connect, "rejected by the proxy")
    } else if let Some(TunnelError::Connect(_)) = find(causes) {
        SendError::new(Connect, "no connection to the proxy")
    } else {
        SendError::new(Connect, io_cause(causes).unwrap_or("no connection"))
    }
}

/// Classifies a failure after the connection was opened. hyper has assigned no connection if `unassigned`.
fn classify_exchange(causes: &[&(dyn StdError + 'static)], unassigned: bool) -> SendError {
    use SendErrorKind::{Connect, ConnectionLost, Malformed};
    match find::<hyper::Error>(causes) {
        Some(hyper) if hyper.is_canceled() || hyper.is_closed() => {
            SendError::new(Connect, "connection closed before use")
        }
        _ if unassigned => SendError::new(Connect, "no connection"),
        Some(hyper) if hyper.is_parse() || causes.iter().any(|cause| is_bad_chunk(*cause)) => {
            SendError::new(Malformed, "invalid HTTP response")
        }
        _ if find::<rustls::Error>(causes).is_some() => {
            SendError::new(ConnectionLost(None), "TLS error after the handshake")
        }
        _ => SendError::new(ConnectionLost(None), io_cause(causes).unwrap_or("connection closed")),
    }
}

/// Classifies an error in the body of a response.
pub(super) fn classify_body(error: &(dyn StdError + 'static)) -> SendError {
    match classify(error) {
        malformed @ SendError { kind: SendErrorKind::Malformed, .. } => malformed,
        SendError { cause, .. } => SendError::new(SendErrorKind::ConnectionLost(None), cause),
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
        Error::AlertReceived(alert) if REJECTIONS.contains(alert) => "handshake rejected by the peer",
        _ => "TLS handshake failed",
    }
}

fn io_cause(causes: &[&(dyn StdError + 'static)]) -> Option<&'static str> {
    if find::<NotResolved>(causes).is_some() {
        return Some("name not resolved");
    }
    let io = causes.iter().rev().find_map(|cause| cause.downcast_ref::<io::Error>())?; // wrapped in others
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

fn is_file_limit(cause: &(dyn StdError + 'static)) -> bool {
    let error = cause.downcast_ref().and_then(Errno::from_io_error);
    error.is_some_and(|error| [Errno::MFILE, Errno::NFILE].contains(&error))
}

/// Returns whether hyper failed to read a chunked body, which it does not count as a parse error.
fn is_bad_chunk(cause: &(dyn StdError + 'static)) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput};
    let Some(io) = cause.downcast_ref::<io::Error>() else { return false };
    let of_tls = io.get_ref().is_some_and(|payload| payload.is::<rustls::Error>());
    !of_tls && io.raw_os_error().is_none() && matches!(io.kind(), InvalidData | InvalidInput)
}

/// Returns the first cause of this type.
fn find<'a, E: StdError + 'static>(causes: &[&'a (dyn StdError + 'static)]) -> Option<&'a E> {
    causes.iter().find_map(|cause| cause.downcast_ref())
}

/// Returns the error and its sources. `io::Error::source` skips its own payload, which is where TLS errors are.
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

    use super::{NotResolved, causes, io_cause, is_file_limit};

    #[test]
    fn a_file_limit_during_resolution_is_recognized() {
        let error = |code| NotResolved(io::Error::from_raw_os_error(code));
        let ours = error(24);
        let theirs = error(111);
        let is_limit = |error| causes(error).iter().any(|cause| is_file_limit(*cause));
        assert!(is_limit(&ours) && !is_limit(&theirs));
        assert_eq!(io_cause(&causes(&theirs)), Some("name not resolved"));
    }
}
