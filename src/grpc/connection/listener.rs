//! The listener: TCP or a Unix socket.

use std::{
    fmt,
    fs::{self, DirBuilder},
    io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

use crate::config::Listen;

/// The send buffer of a connection in the kernel, which uses up to twice as much. Linux would let it grow to 4 MiB for a
/// peer that does not read.
const SEND_BUFFER: u32 = 32 * 1024;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// An accepted connection.
pub(super) type Stream = Either<TcpStream, UnixStream>;

/// A connection that belongs to no runtime.
pub(super) type StdStream = Either<std::net::TcpStream, std::os::unix::net::UnixStream>;

/// Detaches a connection from the runtime that accepted it.
pub(super) fn into_std(stream: Stream) -> io::Result<StdStream> {
    Ok(match stream {
        Either::Left(tcp) => Either::Left(tcp.into_std()?),
        Either::Right(unix) => Either::Right(unix.into_std()?),
    })
}

/// Attaches a connection to the current runtime.
pub(super) fn from_std(stream: StdStream) -> io::Result<Stream> {
    Ok(match stream {
        Either::Left(tcp) => Either::Left(TcpStream::from_std(tcp)?),
        Either::Right(unix) => Either::Right(UnixStream::from_std(unix)?),
    })
}

/// Returns the peer's address; a Unix socket has none.
pub(super) fn peer(stream: &Stream) -> Option<SocketAddr> {
    match stream {
        Either::Left(tcp) => tcp.peer_addr().ok(),
        Either::Right(_) => None,
    }
}

/// A bound listener.
pub enum Listener {
    /// On an address.
    Tcp(TcpListener),
    /// On a path, which is removed on drop.
    Unix(UnixListener, Socket),
}

impl Listener {
    /// Binds the listener. A socket left behind by a process that has died is replaced.
    pub async fn bind(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => bind_tcp(*address).map(Self::Tcp),
            Listen::Unix(path) => {
                remove_stale(path).await?;
                bind_private(path).map(|(listener, socket)| Self::Unix(listener, socket))
            }
        }
    }

    pub(in crate::grpc) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?; // a response is one write, so waiting for more gains nothing
                Ok(Either::Left(stream))
            }
            Self::Unix(listener, _) => Ok(Either::Right(listener.accept().await?.0)),
        }
    }
}

/// Listens on an address.
fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?; // a restart does not wait for connections that the previous process has closed
    socket.set_send_buffer_size(SEND_BUFFER)?; // connections inherit it
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Removes a socket that nobody listens on. A listener that is busy, or that this user may not connect to, is alive.
async fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    match UnixStream::connect(path).await {
        Err(error) if is_socket && error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Ok(()),
    }
}

/// Binds in a private directory, sets mode 0660, then links the socket to its final path, so that it is never reachable with
/// other permissions. Fails if the path exists.
fn bind_private(path: &Path) -> io::Result<(UnixListener, Socket)> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let private = path.with_file_name(format!(".{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let _ = fs::remove_dir_all(&private); // left behind by a process with this id that has died
    DirBuilder::new().mode(0o700).create(&private)?;
    let bound = (|| {
        let inside = private.join("s");
        let listener = UnixListener::bind(&inside)?;
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o660))?;
        fs::hard_link(&inside, path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => io::ErrorKind::AddrInUse.into(),
            _ => error,
        })?;
        Ok((listener, Socket { path: path.to_owned(), inode: inode(&inside)? }))
    })();
    let _ = fs::remove_dir_all(&private);
    bound
}

/// A socket in the file system, identified by its inode.
pub struct Socket {
    path: PathBuf,
    inode: (u64, u64),
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

impl Drop for Socket {
    /// Removes the path, unless another process has bound it since.
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Displays the address as a client writes it.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => address.fmt(f),
                Err(_) => f.write_str("?"),
            },
            Self::Unix(_, socket) => write!(f, "unix:{}", socket.path.display()),
        }
    }
}
