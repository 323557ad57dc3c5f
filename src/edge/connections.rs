//! The connections: how many there may be, how each is served, aged and ended.

use std::{error::Error, fmt::Display, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::{either::Either, sync::CancellationToken, task::TaskTracker};

use super::{
    CallService, STRANGERS,
    beginnings::{Beginning, Beginnings},
    guard::{self, Broken},
    identity::{Identify, Peer, of_certificate},
    listener::{self, Stream},
    own_streams::OwnStreams,
    tls::Tls,
    well_formed::WellFormed,
};
use crate::{
    caller::{Caller, Callers},
    chance, clock,
    config::{self, IdentitySource},
    identity,
    shares::Shares,
    workers::Balancer,
};

/// Calls given up before they were looked at, per connection: many impatient callers may share one, and h2's default of
/// 20 would end it for all of them.
const MAX_PENDING_RESETS: usize = 400;

/// Streams that h2 resets in the life of a connection, such as one beyond `max_concurrent_streams`, or data that comes late for a
/// call that is over. Callers that share a connection would lose their calls with h2's default of 1,024: one burst
/// before the client has heard of `max_concurrent_streams` makes as many. What bounds them is what each costs until it is written.
const MAX_RESETS: usize = 10_000;

/// Who may connect, and how they are known.
pub struct Admission {
    /// TLS, if it is spoken.
    pub tls: Option<Arc<Tls>>,
    /// What callers are told apart by.
    pub source: IdentitySource,
    /// Who may call what.
    pub callers: Arc<Callers>,
}

/// All connections of a listener.
pub struct Connections {
    admission: Admission,
    limits: config::Connections,
    /// How long a call takes at most.
    call: Duration,
    places: Arc<Semaphore>,
    /// Of these, those that have not begun.
    beginnings: Beginnings,
    /// Of these, those of clients that are not served: who they are is not known, or not listed.
    strangers: Semaphore,
    /// Of these, those of each client that is known.
    shares: Shares,
    workers: Balancer,
    running: TaskTracker,
    /// Every connection is told to end.
    drained: CancellationToken,
    /// Every connection ends.
    closed: CancellationToken,
    refused: Counter<u64>,
    broken: Broken,
}

impl Connections {
    /// None yet; these workers will serve them. No call takes longer than `call`.
    pub fn new(
        admission: Admission,
        limits: &config::Connections,
        workers: Balancer,
        call: Duration,
        meter: &Meter,
    ) -> Self {
        let most = limits.max;
        let places = Arc::new(Semaphore::new(most));
        let open = places.clone();
        let _ = meter
            .u64_observable_gauge("scm_gateway.connections.open")
            .with_description("Connections of callers")
            .with_callback(move |gauge| gauge.observe((most - open.available_permits()) as u64, &[]))
            .build();
        Self {
            admission,
            limits: limits.clone(),
            call,
            places,
            beginnings: Beginnings::default(),
            strangers: Semaphore::new(most.div_ceil(STRANGERS)),
            shares: Shares::new(limits.max_per_caller),
            workers,
            running: TaskTracker::new(),
            drained: CancellationToken::new(),
            closed: CancellationToken::new(),
            refused: refused(meter),
            broken: Broken::new(meter),
        }
    }

    /// Serves a connection in a task of its own, on the worker that has the fewest. One too many is closed at once: its
    /// client learns it and can go elsewhere.
    pub(super) fn open(self: &Arc<Self>, stream: Stream, service: impl CallService) {
        let from = listener::peer(&stream);
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            return self.refuse(from, "limit", &"max_connections reached");
        };
        let stream = match listener::detach(stream) {
            Ok(stream) => stream,
            Err(error) => return self.refuse(from, "limit", &error),
        };
        if self.places.available_permits() < self.limits.max / STRANGERS {
            self.beginnings.make_room();
        }
        let beginning = self.beginnings.enter();
        let gives_way = beginning.gives_way.clone();
        let worker = self.workers.least_busy();
        let runtime = worker.runtime.clone();
        let (all, closed) = (self.clone(), self.closed.clone());
        let connection = async move {
            match listener::attach(stream) {
                Ok(stream) => tokio::select! {
                    () = all.serve(stream, from, service, beginning) => {}
                    () = closed.cancelled() => {}
                    () = gives_way.cancelled() => all.refuse(from, "handshake_evicted", &"evicted by a newer connection"),
                },
                Err(error) => all.refuse(from, "limit", &error),
            }
            drop((worker, place));
        };
        self.running.spawn_on(connection, &runtime);
    }

    /// Tells every connection to end, and waits until all have.
    pub(super) async fn drain(&self) {
        self.drained.cancel();
        self.running.close();
        self.running.wait().await;
    }

    /// Ends what is left.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    async fn serve(&self, stream: Stream, from: Option<SocketAddr>, service: impl CallService, beginning: Beginning) {
        let Admission { tls, source, callers } = &self.admission;
        let overdue = clock::steady() + self.limits.handshake_timeout;
        let user = match &stream {
            Either::Right(unix) => unix.peer_cred().ok().and_then(|peer| identity::user(peer.uid())),
            Either::Left(_) => None,
        };
        let stream = match tls {
            None => Either::Left(stream),
            Some(tls) => match timeout_at(overdue, tls.acceptor().accept(stream)).await {
                Ok(Ok(stream)) => Either::Right(stream),
                Ok(Err(gone)) if has_gone(&gone) => return, // as a probe of the port does
                Ok(Err(error)) => return self.refuse(from, "tls", &error),
                Err(late) => return self.refuse(from, "handshake_timeout", &late),
            },
        };
        let peer = match (source, &stream) {
            (IdentitySource::PeerUser, _) => Peer::Is(callers.by_names(user.as_slice())),
            (IdentitySource::ForwardedHeader, _) => Peer::Sidecar(callers.clone()),
            (IdentitySource::ClientCertificate, Either::Right(tls)) => {
                let certificate = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
                Peer::Is(certificate.map(|certificate| of_certificate(certificate, callers)).unwrap_or_default())
            }
            _ => Peer::Is(Caller::default()),
        };
        // Who is not served is told so, and does not keep a place from those who are.
        let is_stranger = peer.is_stranger(callers);
        let age = if is_stranger { self.limits.handshake_timeout } else { chance::about(self.limits.max_age) };
        let _place = match is_stranger.then(|| self.strangers.try_acquire()).transpose() {
            Ok(place) => place,
            Err(full) => return self.refuse(from, "limit", &full),
        };
        let _share = match peer.identity().map(|caller| self.shares.take(caller, 1)) {
            Some(None) => return self.refuse(from, "limit_per_caller", &"max_connections_per_caller reached"),
            share => share,
        };
        self.http2(stream, from, Identify::new(service, peer), (beginning, overdue), age).await;
    }

    /// Serves what begins in time, and ends with age, with the gateway, or as its peer likes.
    async fn http2(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        from: Option<SocketAddr>,
        service: impl CallService,
        (beginning, overdue): (Beginning, Instant),
        age: Duration,
    ) {
        let ending = CancellationToken::new();
        let service = WellFormed::new(OwnStreams::new(service, ending.clone(), self.call));
        let (stream, guard) = guard::guard(
            stream,
            self.limits.max_control_frames,
            self.broken.clone(),
            beginning,
            self.limits.keep_alive.1,
        );
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_local_error_reset_streams(MAX_RESETS)
            .max_concurrent_streams(self.limits.max_concurrent_streams)
            .max_header_list_size(self.limits.max_header_list_size)
            .initial_stream_window_size(self.limits.windows.0)
            .initial_connection_window_size(self.limits.windows.1)
            .keep_alive_interval(self.limits.keep_alive.0)
            .keep_alive_timeout(self.limits.keep_alive.1)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let mut connection = pin!(connection);
        // The first of these to happen ends it, or begins its end.
        tokio::select! {
            ended = connection.as_mut() => return self.note(from, ended),
            late = guard.overdue(overdue) => return self.refuse(from, "handshake_timeout", &late),
            () = self.drained.cancelled() => {}
            // Clients come back, to another instance perhaps; not all at the same time.
            () = sleep(age) => {}
        }
        connection.as_mut().graceful_shutdown(); // GOAWAY: what came before it is answered
        ending.cancel();
        tokio::select! {
            ended = connection => self.note(from, ended),
            () = sleep(self.call + super::LINGER), if !self.drained.is_cancelled() => {
                tracing::debug!(from = from.map(display), "connection did not close in time");
            }
        }
    }

    fn refuse(&self, from: Option<SocketAddr>, reason: &'static str, error: &dyn Display) {
        tracing::debug!(from = from.map(display), reason, %error, "connection rejected");
        self.refused.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// Counts what h2 ended; the guard counts for itself. A client that just goes away is nothing to count.
    fn note(&self, from: Option<SocketAddr>, ended: hyper::Result<()>) {
        let Err(error) = ended else { return };
        tracing::debug!(from = from.map(display), %error, "connection error");
        let mut source: Option<&(dyn Error + 'static)> = Some(&error);
        while let Some(error) = source {
            let h2 = error.downcast_ref::<h2::Error>().filter(|error| !error.is_io() && !error.is_remote());
            if let Some(reason) = h2.and_then(h2::Error::reason) {
                return self.broken.count(reason);
            }
            source = error.source();
        }
    }
}

/// Counts refusals by reason, each shown before the first one, so that a rate sees it.
fn refused(meter: &Meter) -> Counter<u64> {
    let counter = meter
        .u64_counter("scm_gateway.connections.refused")
        .with_description("Connections that were closed before their first call, by reason")
        .build();
    for reason in ["limit", "limit_per_caller", "tls", "handshake_timeout", "handshake_evicted"] {
        counter.add(0, &[KeyValue::new("reason", reason)]);
    }
    counter
}

/// Whether the peer has closed the connection, with or without a word.
fn has_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}
