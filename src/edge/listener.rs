//! What the gateway listens on: TCP or a Unix socket.

use std::{
    fmt,
    fs::{self, DirBuilder},
    io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

use crate::config::Listen;

/// An accepted connection.
pub(super) type Stream = Either<TcpStream, UnixStream>;

/// One that belongs to no runtime yet.
pub(super) type Detached = Either<std::net::TcpStream, std::os::unix::net::UnixStream>;

/// Takes a connection from the runtime that accepted it.
pub(super) fn detach(stream: Stream) -> io::Result<Detached> {
    Ok(match stream {
        Either::Left(tcp) => Either::Left(tcp.into_std()?),
        Either::Right(unix) => Either::Right(unix.into_std()?),
    })
}

/// Gives a connection to the runtime that this is called in.
pub(super) fn attach(stream: Detached) -> io::Result<Stream> {
    Ok(match stream {
        Either::Left(tcp) => Either::Left(TcpStream::from_std(tcp)?),
        Either::Right(unix) => Either::Right(UnixStream::from_std(unix)?),
    })
}

/// Where a connection comes from; a Unix socket tells nothing.
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
    /// On a path, which is removed with the listener.
    Unix(UnixListener, Socket),
}

impl Listener {
    /// Binds. A socket that a dead process left behind is replaced.
    pub async fn bind(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp),
            Listen::Unix(path) => {
                remove_dead(path).await?;
                bind_closed(path).map(|(listener, socket)| Self::Unix(listener, socket))
            }
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?; // an answer is one write, it need not wait for more
                Ok(Either::Left(stream))
            }
            Self::Unix(listener, _) => Ok(Either::Right(listener.accept().await?.0)),
        }
    }
}

/// Removes a socket that nobody listens on. One whose listener is busy, or not ours to ask, is alive.
async fn remove_dead(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    match UnixStream::connect(path).await {
        Err(error) if is_socket && error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Ok(()),
    }
}

/// Binds where nobody else can look, gives the socket its mode, and only then its name: who may write to a socket may
/// call, ours and our group's. A name that is taken stays.
fn bind_closed(path: &Path) -> io::Result<(UnixListener, Socket)> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let closed = path.with_file_name(format!(".{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let _ = fs::remove_dir_all(&closed); // left behind by a process of this number that died
    DirBuilder::new().mode(0o700).create(&closed)?;
    let bound = (|| {
        let inside = closed.join("s");
        let listener = UnixListener::bind(&inside)?;
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o660))?;
        fs::hard_link(&inside, path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => io::ErrorKind::AddrInUse.into(),
            _ => error,
        })?;
        Ok((listener, Socket { path: path.to_owned(), inode: inode(&inside)? }))
    })();
    let _ = fs::remove_dir_all(&closed);
    bound
}

/// A socket in the file system, known again by its inode.
pub struct Socket {
    path: PathBuf,
    inode: (u64, u64),
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

impl Drop for Socket {
    /// Another process may have put its own socket there.
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The address as a client would write it.
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
