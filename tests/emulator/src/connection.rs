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
use crate::iam::Rejection;
use crate::journal::{Processed, Recorded, Rejected};
use crate::script::{Reply, Step, Then};
use crate::{Account, Shared, scm};

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
pub(crate) async fn run(socket: TcpStream, shared: Arc<Shared>) {
    let _ = socket.set_nodelay(true);
    let tls = shared.certificates().next();
    match tls {
        None => serve(socket, &shared).await,
        Some(tls) => {
            let handshake = TlsAcceptor::from(tls).accept(socket);
            if let Ok(stream) = handshake.await {
                serve(stream, &shared).await;
            }
        }
    }
}

async fn serve<S: Wire>(mut stream: S, shared: &Shared) {
    let mut buffer = BytesMut::new();
    loop {
        let next = match read(&mut stream, &mut buffer, shared).await {
            Ok(request) => handle(&mut stream, shared, &request).await,
            Err((_, RequestError::Disconnected)) => return,
            Err((request, RequestError::Rejected(status, text))) => {
                return reject(&mut stream, shared, request.as_ref(), status, text).await;
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
async fn read<S: Wire>(
    stream: &mut S,
    buffer: &mut BytesMut,
    shared: &Shared,
) -> Result<Request, (Option<Request>, RequestError)> {
    if buffer.is_empty() {
        http::fill(stream, buffer).await.map_err(|error| (None, error))?;
    }
    if shared.script.closes_unread() {
        return Err((None, RequestError::Disconnected));
    }
    let head = http::read_head(stream, buffer).await;
    if !matches!(head, Err(RequestError::Disconnected)) {
        shared.journal.attempt();
    }
    let mut request = head.map_err(|error| (None, error))?;
    match http::read_body(stream, buffer, &mut request).await {
        Ok(()) => Ok(request),
        Err(error) => Err((Some(request), error)),
    }
}

/// Answers a request that cannot be read. Closing a socket with unread bytes would reset the connection and could
/// discard the response, so further bytes are read for a while.
async fn reject<S: Wire>(stream: &mut S, shared: &Shared, request: Option<&Request>, status: u16, text: &str) {
    let reply = scm::gateway_error(status, "APIG.0201", text).header("Connection", "close");
    let bytes = http::encode(&scm::dated(reply, &shared.options), false);
    observe(shared, request, Some(status), None);
    if stream.write_all(&bytes).await.is_ok() && stream.shutdown().await.is_ok() {
        let _ = tokio::time::timeout(LINGER, until_disconnected(stream)).await;
    }
}

/// Verifies and records a request, then applies the script's next step.
async fn handle<S: Wire>(stream: &mut S, shared: &Shared, request: &Request) -> io::Result<Next> {
    let accounts = shared.accounts();
    let admitted = admit(shared, &accounts, request);
    let rejection = admitted.as_ref().err().map(|rejection| rejection.reason);
    let step = match shared.script.next() {
        Step::Serve if admitted.is_ok() => scm::step(request, &shared.options, &shared.script),
        step => step,
    };
    match &step {
        Step::HangThenServe(gate) => gate.notified().await,
        Step::Serve if !shared.options.service_time.is_zero() => sleep(shared.options.service_time).await,
        _ => {}
    }
    let reply = match step {
        Step::Serve | Step::HangThenServe(_) => scm::dated(serve_request(shared, request, admitted), &shared.options),
        Step::Reply(reply) => reply,
        other => {
            observe(shared, Some(request), None, rejection);
            return misbehave(stream, other).await;
        }
    };
    observe(shared, Some(request), Some(reply.status), rejection);
    send(stream, request, reply).await
}

/// Verifies a request. A rejected request is only counted.
fn admit<'a>(shared: &Shared, accounts: &'a [Account], request: &Request) -> Result<&'a Account, Rejection> {
    let now = (shared.options.now)();
    match shared.authenticator.admit(request, accounts, now) {
        Ok(account) => {
            shared.journal.record(recorded(request, account));
            Ok(account)
        }
        Err(rejection) => {
            shared.journal.reject(Rejected { reason: rejection.reason, target: request.target.clone() });
            Err(rejection)
        }
    }
}

fn recorded(request: &Request, account: &Account) -> Recorded {
    let headers = request.headers.iter();
    Recorded {
        method: request.method.clone(),
        target: request.target.clone(),
        headers: headers.map(|(name, value)| (name.clone(), String::from_utf8_lossy(value).into_owned())).collect(),
        body: request.body.clone(),
        access_key: account.access_key.clone(),
    }
}

/// Serves an admitted request, and answers 401 to a rejected one.
fn serve_request(shared: &Shared, request: &Request, admitted: Result<&Account, Rejection>) -> Reply {
    match admitted {
        Ok(account) => {
            let throttled = shared.windows.count(request, account, &shared.options);
            throttled.unwrap_or_else(|| shared.scm.serve(request, account, &shared.options))
        }
        Err(rejection) => scm::gateway_error(401, "APIG.0301", &rejection.message),
    }
}

async fn send<S: Wire>(stream: &mut S, request: &Request, reply: Reply) -> io::Result<Next> {
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
async fn misbehave<S: Wire>(stream: &mut S, step: Step) -> io::Result<Next> {
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
        Step::Close | Step::CloseUnread | Step::Serve | Step::Reply(_) | Step::HangThenServe(_) => Ok(Next::Drop),
    }
}

fn reset<S: Wire>(stream: &mut S) -> io::Result<Next> {
    stream.socket().set_zero_linger()?;
    Ok(Next::Drop)
}

async fn hang<S: Wire>(stream: &mut S) -> io::Result<Next> {
    until_disconnected(stream).await;
    Ok(Next::Drop)
}

async fn drip<S: Wire>(stream: &mut S, head: &[u8], bytes: &[u8], every: Duration) -> io::Result<Next> {
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

async fn until_disconnected<S: Wire>(stream: &mut S) {
    let mut discarded = [0; 4096];
    while matches!(stream.read(&mut discarded).await, Ok(1..)) {}
}

fn observe(shared: &Shared, request: Option<&Request>, status: Option<u16>, rejection: Option<&'static str>) {
    if let Some(observer) = &shared.options.observer {
        observer(&Processed {
            method: request.map_or("-", |request| &request.method).to_owned(),
            path: request.map_or("-", Request::path).to_owned(),
            status,
            rejection,
        });
    }
}
