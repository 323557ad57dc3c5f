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
    ForwardedHeader,
    /// The user of the peer of the Unix socket.
    PeerUser,
}

impl IdentitySource {
    /// Returns the identity source of a listener.
    pub(super) fn of(listen: &Listen, trust_xfcc: bool, client_ca: bool) -> Self {
        match listen {
            _ if trust_xfcc => Self::ForwardedHeader,
            _ if client_ca => Self::ClientCertificate,
            Listen::Unix(_) => Self::PeerUser,
            Listen::Tcp(_) => Self::None,
        }
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
