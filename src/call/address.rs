//! The address of a gateway, as an option or the configuration gives it.

use std::{fmt, net::IpAddr};

use http::uri::Authority;

use crate::{config::Listen, ops::health_check::connectable};

/// The address of a gateway.
pub(super) enum Address {
    /// A host and a port.
    Tcp(Authority),
    /// The path of a Unix socket.
    Unix(String),
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTS: &str = "expects HOST:PORT, or unix: and a path";
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(EXPECTS) } else { Ok(Self::Unix(path.to_owned())) };
        }
        let authority = text.parse::<Authority>().ok().filter(|address| address.port_u16().is_some());
        let is_plain = |address: &Authority| !address.as_str().contains('@') && !address.host().is_empty();
        authority.filter(is_plain).map(Self::Tcp).ok_or(EXPECTS)
    }

    /// Returns whether a call to this address stays on this machine. Another name may resolve to any machine.
    pub(super) fn is_local(&self) -> bool {
        let Self::Tcp(authority) = self else { return true };
        let host = authority.host();
        match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(ip) => ip.to_canonical().is_loopback(),
            Err(_) => is_localhost(host),
        }
    }

    /// Returns the address at which a listener of this machine is reached.
    pub(super) fn of(listen: &Listen) -> Self {
        match listen {
            Listen::Tcp(address) => {
                let text = connectable(*address).to_string();
                Self::Tcp(text.parse().expect("an IP address with a port is an authority"))
            }
            Listen::Unix(path) => Self::Unix(path.display().to_string()),
        }
    }
}

/// Returns whether a host is the name of this machine. It is called on loopback, whatever the name resolves to.
pub(super) fn is_localhost(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => authority.fmt(f),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}
