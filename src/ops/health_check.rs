//! `--health`: asks the gateway that runs with the same configuration whether it lives. For containers, which have no
//! shell and no curl to ask with.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// How long connecting, asking and hearing may take, each.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Whether `/livez` at this admin address answers 200.
///
/// # Errors
///
/// Nobody listens there, or does not answer in time.
pub fn is_live(admin: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&connectable(admin), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut status = [0; b"HTTP/1.1 200".len()];
    stream.read_exact(&mut status)?;
    Ok(status.ends_with(b" 200"))
}

/// An address that listens everywhere is asked on loopback.
fn connectable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
