//! `--health`: requests `/livez` from the gateway with the same configuration, for containers without a shell or curl.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// The timeout of connecting, of each write and of each read.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Returns whether `/livez` at this admin address responds with 200.
///
/// # Errors
///
/// Fails if the connection or the response fails or times out.
pub fn is_live(admin: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&connectable(admin), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut status = [0; b"HTTP/1.1 200".len()];
    stream.read_exact(&mut status)?;
    Ok(status.ends_with(b" 200"))
}

/// Replaces the unspecified address, which listens everywhere, by loopback.
pub fn connectable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
