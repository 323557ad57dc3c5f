//! Serves a connection: each request is verified, recorded, and then served or answered by the script.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::http::{self, Request, RequestError};
use crate::journal::Processed;
use crate::script::{Reply, Step, Then};
use crate::server::{Server, Service};
use crate::time::imf_fixdate;

/// How long the bytes of a client are read after its request was rejected, before the connection is dropped.
const LINGER: Duration = Duration::from_secs(1);

/// A byte stream with access to its socket.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send {
    fn socket(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Wire for TlsStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// What happens to the connection after a request.
#[derive(PartialEq)]
enum Next {
    KeepAlive,
    Close,
    /// Drop the stream without TLS's close_notify.
    Drop,
}

/// Serves an accepted socket until it is closed.
pub(crate) async fn run<S: Service>(socket: TcpStream, server: Arc<Server<S>>) {
    let _ = socket.set_nodelay(true);
    let tls = server.certificates().next();
    match tls {
        None => serve(socket, &server).await,
        Some(tls) => {
            let handshake = TlsAcceptor::from(tls).accept(socket);
            if let Ok(stream) = handshake.await {
                serve(stream, &server).await;
            }
        }
    }
}

async fn serve<W: Wire, S: Service>(mut stream: W, server: &Server<S>) {
    let mut buffer = BytesMut::new();
    loop {
        let next = match read(&mut stream, &mut buffer, server).await {
            Ok(request) => handle(&mut stream, server, &request).await,
            Err((_, RequestError::Disconnected)) => return,
            Err((request, RequestError::Rejected(status, text))) => {
                return reject(&mut stream, server, request.as_ref(), status, text).await;
            }
        };
        match next {
            Ok(Next::KeepAlive) => {}
            Ok(Next::Close) => {
                let _ = stream.shutdown().await;
                return;
            }
            Ok(Next::Drop) | Err(_) => return,
        }
    }
}

/// Reads the next complete request. On failure returns its head, if the head was complete.
async fn read<W: Wire, S: Service>(
    stream: &mut W,
    buffer: &mut BytesMut,
    server: &Server<S>,
) -> Result<Request, (Option<Request>, RequestError)> {
    if buffer.is_empty() {
        http::fill(stream, buffer).await.map_err(|error| (None, error))?;
    }
    if server.script.closes_unread() {
        return Err((None, RequestError::Disconnected));
    }
    let head = http::read_head(stream, buffer).await;
    if !matches!(head, Err(RequestError::Disconnected)) {
        server.counters.attempt();
    }
    let mut request = head.map_err(|error| (None, error))?;
    match http::read_body(stream, buffer, &mut request).await {
        Ok(()) => Ok(request),
        Err(error) => Err((Some(request), error)),
    }
}

/// Answers a request that cannot be read. Closing a socket with unread bytes would reset the connection and could
/// discard the response, so further bytes are read for a while.
async fn reject<W: Wire, S: Service>(
    stream: &mut W,
    server: &Server<S>,
    request: Option<&Request>,
    status: u16,
    text: &str,
) {
    let reply = server.service.unreadable(status, text).header("Connection", "close");
    let bytes = http::encode(&dated(reply, server), false);
    observe(server, request, Some(status), None);
    if stream.write_all(&bytes).await.is_ok() && stream.shutdown().await.is_ok() {
        let _ = tokio::time::timeout(LINGER, until_disconnected(stream)).await;
    }
}

/// Admits a request, then applies the script's next step.
async fn handle<W: Wire, S: Service>(stream: &mut W, server: &Server<S>, request: &Request) -> io::Result<Next> {
    let service = &server.service;
    let admitted = service.admit(request);
    let rejection = S::rejection(&admitted);
    if server.responding.subscribe().wait_for(|responding| *responding).await.is_err() {
        return Ok(Next::Drop);
    }
    let step = match server.script.next() {
        Step::Serve => service.step(request, &admitted, &server.script),
        step => step,
    };
    match &step {
        Step::HangThenServe(gate) => gate.notified().await,
        Step::Serve if !server.settings.service_time.is_zero() => sleep(server.settings.service_time).await,
        _ => {}
    }
    let reply = match step {
        Step::Serve | Step::HangThenServe(_) => dated(service.serve(request, admitted, None), server),
        Step::Issue(issue) => dated(service.serve(request, admitted, Some(&issue)), server),
        Step::Reply(reply) => reply,
        other => {
            observe(server, Some(request), None, rejection);
            return misbehave(stream, other).await;
        }
    };
    observe(server, Some(request), Some(reply.status), rejection);
    send(stream, request, reply).await
}

/// Adds the `Date` header of every unscripted response.
fn dated<S>(reply: Reply, server: &Server<S>) -> Reply {
    reply.header("Date", imf_fixdate((server.settings.now)()))
}

async fn send<W: Wire>(stream: &mut W, request: &Request, reply: Reply) -> io::Result<Next> {
    let is_close = |(name, value): &(String, String)| {
        name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close")
    };
    let closes = request.wants_close() || reply.headers.iter().any(is_close);
    let reply = if closes && !reply.has("connection") { reply.header("Connection", "close") } else { reply };
    let bytes = http::encode(&reply, request.method == "HEAD");
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    Ok(if closes { Next::Close } else { Next::KeepAlive })
}

/// Applies a step that does not send a regular response.
async fn misbehave<W: Wire>(stream: &mut W, step: Step) -> io::Result<Next> {
    match step {
        Step::Raw(bytes) => {
            stream.write_all(&bytes).await?;
            stream.flush().await?;
            Ok(Next::Close)
        }
        Step::RawThen(bytes, then) => {
            stream.write_all(&bytes).await?;
            stream.flush().await?;
            match then {
                Then::Cut => Ok(Next::Drop),
                Then::Reset => reset(stream),
                Then::Hang => hang(stream).await,
                Then::KeepAlive => Ok(Next::KeepAlive),
            }
        }
        Step::Drip { head, bytes, every } => drip(stream, &head, &bytes, every).await,
        Step::Endless { head, chunk } => {
            stream.write_all(&head).await?;
            loop {
                stream.write_all(&chunk).await?;
            }
        }
        Step::Reset => reset(stream),
        Step::Hang => hang(stream).await,
        Step::Close | Step::CloseUnread | Step::Serve | Step::Reply(_) | Step::Issue(_) | Step::HangThenServe(_) => {
            Ok(Next::Drop)
        }
    }
}

fn reset<W: Wire>(stream: &mut W) -> io::Result<Next> {
    stream.socket().set_zero_linger()?;
    Ok(Next::Drop)
}

async fn hang<W: Wire>(stream: &mut W) -> io::Result<Next> {
    until_disconnected(stream).await;
    Ok(Next::Drop)
}

async fn drip<W: Wire>(stream: &mut W, head: &[u8], bytes: &[u8], every: Duration) -> io::Result<Next> {
    stream.write_all(head).await?;
    for byte in bytes {
        tokio::select! {
            () = sleep(every) => {}
            () = until_disconnected(stream) => return Ok(Next::Drop),
        }
        stream.write_all(&[*byte]).await?;
        stream.flush().await?;
    }
    Ok(Next::Close)
}

async fn until_disconnected<W: Wire>(stream: &mut W) {
    let mut discarded = [0; 4096];
    while matches!(stream.read(&mut discarded).await, Ok(1..)) {}
}

fn observe<S>(server: &Server<S>, request: Option<&Request>, status: Option<u16>, rejection: Option<&'static str>) {
    if let Some(observer) = &server.settings.observer {
        observer(&Processed {
            method: request.map_or("-", |request| &request.method).to_owned(),
            path: request.map_or("-", Request::path).to_owned(),
            status,
            rejection,
        });
    }
}
