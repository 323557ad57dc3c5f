//! `server.listen`: the address for gRPC calls, and how it identifies callers.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::reader::Raw;

/// The longest path of a Unix socket in bytes: `sun_path` of unix(7) has 108 bytes, the last of them zero.
const MAX_SOCKET_PATH: usize = 107;

/// An address for gRPC calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address and port.
    Tcp(SocketAddr),
    /// The absolute path of a Unix socket.
    Unix(PathBuf),
}

impl Listen {
    /// Returns whether only this machine can reach the address.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The source of the callers' identities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentitySource {
    /// None: callers are not distinguished.
    None,
    /// The client certificate of `[server.tls]`.
    ClientCertificate,
    /// The `x-forwarded-client-cert` header of a sidecar.
    ForwardedHeader(XfccElements),
    /// The user of the peer of the Unix socket.
    PeerUser,
}

/// Which elements of `x-forwarded-client-cert` are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XfccElements {
    /// Exactly one, as a sidecar writes that replaces the header.
    One,
    /// The last one of any number, as the nearest of several proxies appends it.
    Last,
}

impl IdentitySource {
    /// Returns the identity source of a listener. `xfcc` is set if the header is trusted.
    pub(super) fn of(listen: &Listen, xfcc: Option<XfccElements>, client_ca: bool) -> Self {
        match (xfcc, listen) {
            (Some(elements), _) => Self::ForwardedHeader(elements),
            (None, _) if client_ca => Self::ClientCertificate,
            (None, Listen::Unix(_)) => Self::PeerUser,
            (None, Listen::Tcp(_)) => Self::None,
        }
    }
}

/// Parses `server.xfcc_elements`.
pub(super) fn xfcc_elements(raw: &Raw) -> Result<XfccElements, String> {
    const EXPECTS: &str = "\"one\", or \"last\" behind several proxies that append";
    match raw.text(EXPECTS)? {
        "one" => Ok(XfccElements::One),
        "last" => Ok(XfccElements::Last),
        _ => Err(format!("expects {EXPECTS}")),
    }
}

/// Parses an IP address with its port, or `unix:` and the absolute path of a socket.
pub(super) fn parse(raw: &Raw) -> Result<Listen, String> {
    const EXPECTS: &str = "an IP address and port such as \"127.0.0.1:50051\", or \"unix:/run/scm-gateway.sock\"";
    let text = raw.text(EXPECTS)?;
    let Some(path) = text.strip_prefix("unix:") else {
        return text.parse().map(Listen::Tcp).map_err(|_| format!("expects {EXPECTS}"));
    };
    if !path.starts_with('/') || path.len() > MAX_SOCKET_PATH || path.contains('\0') {
        return Err(format!("expects an absolute path of at most {MAX_SOCKET_PATH} bytes after \"unix:\""));
    }
    Ok(Listen::Unix(PathBuf::from(path)))
}
