//! One connection: its requests one after the other, each verified, recorded and then served or scripted.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::http::{self, Broken, Request};
use crate::iam::Refusal;
use crate::journal::{Answered, Recorded, Refused};
use crate::script::{Reply, Step, Then};
use crate::{Account, Shared, scm};

/// How long a client that was told off may go on sending before the connection is dropped.
const LINGER: Duration = Duration::from_secs(1);

/// A byte stream that knows its socket.
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

/// Whether the connection takes another request.
#[derive(PartialEq)]
enum Next {
    KeepAlive,
    Close,
    /// Drop the stream as it is, without a farewell of TLS.
    Drop,
}

/// Serves an accepted socket to its end.
pub(crate) async fn run(socket: TcpStream, shared: Arc<Shared>) {
    // Small answers go out at once.
    let _ = socket.set_nodelay(true);
    match shared.options.tls.as_ref() {
        None => serve(socket, &shared).await,
        Some(tls) => {
            let handshake = TlsAcceptor::from(tls.config()).accept(socket);
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
            Ok(request) => deal(&mut stream, shared, &request).await,
            Err((_, Broken::Gone)) => return,
            Err((request, Broken::Answer(status, text))) => {
                return tell_off(&mut stream, shared, request.as_ref(), status, text).await;
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

/// The next request, whole; on failure as much of it as there was.
async fn read<S: Wire>(
    stream: &mut S,
    buffer: &mut BytesMut,
    shared: &Shared,
) -> Result<Request, (Option<Request>, Broken)> {
    if buffer.is_empty() {
        http::fill(stream, buffer).await.map_err(|broken| (None, broken))?;
    }
    if shared.script.closes_unread() {
        return Err((None, Broken::Gone));
    }
    let head = http::read_head(stream, buffer).await;
    if !matches!(head, Err(Broken::Gone)) {
        shared.journal.attempt();
    }
    let mut request = head.map_err(|broken| (None, broken))?;
    match http::read_body(stream, buffer, &mut request).await {
        Ok(()) => Ok(request),
        Err(broken) => Err((Some(request), broken)),
    }
}

/// Answers what is no request we take. Closing with bytes unread would reset the connection and could take the
/// answer with it, so the rest is read for a while.
async fn tell_off<S: Wire>(stream: &mut S, shared: &Shared, request: Option<&Request>, status: u16, text: &str) {
    let reply = scm::gateway_error(status, "APIG.0201", text).header("Connection", "close");
    let bytes = http::encode(&scm::dated(reply, &shared.options), false);
    observe(shared, request, Some(status), None);
    if stream.write_all(&bytes).await.is_ok() && stream.shutdown().await.is_ok() {
        let _ = tokio::time::timeout(LINGER, until_gone(stream)).await;
    }
}

/// Verifies and records a request, then takes the script's next step with it.
async fn deal<S: Wire>(stream: &mut S, shared: &Shared, request: &Request) -> io::Result<Next> {
    let admitted = admit(shared, request);
    let refusal = admitted.as_ref().err().map(|refusal| refusal.reason);
    let step = match shared.script.next() {
        Step::Serve if admitted.is_ok() => scm::step(request, &shared.options),
        step => step,
    };
    match &step {
        Step::HangThenServe(gate) => gate.notified().await,
        Step::Serve if !shared.options.service_time.is_zero() => sleep(shared.options.service_time).await,
        _ => {}
    }
    let reply = match step {
        Step::Serve | Step::HangThenServe(_) => scm::dated(usual(shared, request, admitted), &shared.options),
        Step::Reply(reply) => reply,
        other => {
            observe(shared, Some(request), None, refusal);
            return misbehave(stream, other).await;
        }
    };
    observe(shared, Some(request), Some(reply.status), refusal);
    send(stream, request, reply).await
}

/// Verifies a request; a refused one is counted and leaves no other trace.
fn admit<'a>(shared: &'a Shared, request: &Request) -> Result<&'a Account, Refusal> {
    let now = (shared.options.now)();
    match shared.door.admit(request, &shared.options.accounts, now) {
        Ok(account) => {
            shared.journal.record(recorded(request, account));
            Ok(account)
        }
        Err(refusal) => {
            shared.journal.refuse(Refused { reason: refusal.reason, target: request.target.clone() });
            Err(refusal)
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

/// The service for those who were let in, 401 for the others.
fn usual(shared: &Shared, request: &Request, admitted: Result<&Account, Refusal>) -> Reply {
    match admitted {
        Ok(account) => {
            let refusal = shared.windows.count(request, account, &shared.options);
            refusal.unwrap_or_else(|| shared.scm.serve(request, account, &shared.options))
        }
        Err(refusal) => scm::gateway_error(401, "APIG.0301", &refusal.message),
    }
}

async fn send<S: Wire>(stream: &mut S, request: &Request, reply: Reply) -> io::Result<Next> {
    let says_close = |(name, value): &(String, String)| {
        name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close")
    };
    let closes = request.wants_close() || reply.headers.iter().any(says_close);
    let reply = if closes && !reply.has("connection") { reply.header("Connection", "close") } else { reply };
    let bytes = http::encode(&reply, request.method == "HEAD");
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    Ok(if closes { Next::Close } else { Next::KeepAlive })
}

/// The steps that are no regular answer.
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
    until_gone(stream).await;
    Ok(Next::Drop)
}

async fn drip<S: Wire>(stream: &mut S, head: &[u8], bytes: &[u8], every: Duration) -> io::Result<Next> {
    stream.write_all(head).await?;
    for byte in bytes {
        tokio::select! {
            () = sleep(every) => {}
            () = until_gone(stream) => return Ok(Next::Drop),
        }
        stream.write_all(&[*byte]).await?;
        stream.flush().await?;
    }
    Ok(Next::Close)
}

async fn until_gone<S: Wire>(stream: &mut S) {
    let mut scrap = [0; 4096];
    while matches!(stream.read(&mut scrap).await, Ok(1..)) {}
}

fn observe(shared: &Shared, request: Option<&Request>, status: Option<u16>, refusal: Option<&'static str>) {
    if let Some(observer) = &shared.options.observer {
        observer(&Answered {
            method: request.map_or("-", |request| &request.method).to_owned(),
            path: request.map_or("-", Request::path).to_owned(),
            status,
            refusal,
        });
    }
}
