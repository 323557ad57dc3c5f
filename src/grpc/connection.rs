//! The connections of the listener: their limits, their service, their age and their end.

use std::{
    fmt::Display,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use opentelemetry::metrics::Meter;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    time::{sleep, timeout_at},
};
use tokio_util::{either::Either, sync::CancellationToken, task::TaskTracker};

use super::{
    auth::{AccessPolicy, Caller, peer, peer::Peer},
    limit::{
        UNLISTED_SHARE,
        connection_memory::ConnectionMemory,
        keyed_quota::{KeyedPermit, KeyedQuota},
    },
    routes::Routes,
    stack::{self, CallService, RpcService},
};
use crate::{
    clock,
    config::{self, IdentitySource},
    jitter,
    ops::status,
    runtime::WorkerPicker,
    validate::identity,
};

#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub(super) mod handshakes;
pub(super) mod http2_guard;
pub mod listener;
mod rejection;
pub mod tls;

use handshakes::{PendingHandshake, PendingHandshakes};
use http2_guard::{GuardedIo, ProtocolErrors};
use listener::Stream;
use rejection::{Rejection, Rejections};
use tls::Tls;

/// Requests reset before hyper accepted them, per connection. Many impatient callers may share one connection, and h2's
/// default of 20 would close it for all of them.
const MAX_PENDING_RESETS: usize = 400;

/// Streams that h2 resets during the life of a connection, for example beyond `max_concurrent_streams`, or for data of a call
/// that has ended.
///
/// With h2's default of 1,024, callers that share a connection would lose their calls: one burst before the client knows
/// `max_concurrent_streams` causes that many. The memory of each reset until it is written bounds them instead.
const MAX_RESETS: usize = 10_000;

/// The bytes of a response that h2 takes before the socket has accepted them, per stream. A message is taken as a whole.
const MAX_SEND_BUFFER: usize = 16 * 1024;

/// How long a peer has to read its last responses once all calls are done.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// How callers are identified and authorized.
pub struct Admission {
    /// TLS, if the listener uses it.
    pub tls: Option<Arc<Tls>>,
    /// Where the identity of a caller comes from.
    pub source: IdentitySource,
    /// Which caller may call what.
    pub policy: Arc<AccessPolicy>,
}

/// All connections of the listener.
pub struct Connections<T> {
    routes: Routes<T>,
    shared: stack::Shared,
    admission: Admission,
    limits: config::Connections,
    slots: Arc<Semaphore>,
    handshakes: PendingHandshakes,
    unlisted: Semaphore,
    per_caller: KeyedQuota,
    memory: ConnectionMemory,
    workers: WorkerPicker,
    tasks: TaskTracker,
    /// Cancelled when every connection has to drain.
    draining: CancellationToken,
    /// Cancelled when every connection has to close.
    closing: CancellationToken,
    rejections: Rejections,
    protocol_errors: ProtocolErrors,
}

/// The permits of an identified connection, returned on drop.
struct ConnectionPermits<'a> {
    _unlisted: Option<SemaphorePermit<'a>>,
    _caller: Option<KeyedPermit>,
}

impl<T: RpcService> Connections<T> {
    /// Creates the set of connections, which `workers` serve.
    pub fn new(
        routes: Routes<T>,
        shared: stack::Shared,
        admission: Admission,
        limits: &config::Connections,
        workers: WorkerPicker,
        meter: &Meter,
    ) -> Self {
        let max = limits.max;
        let slots = Arc::new(Semaphore::new(max));
        let free = slots.clone();
        let _ = meter
            .u64_observable_gauge("scm_gateway.connections.open")
            .with_description("Open connections of callers")
            .with_callback(move |gauge| gauge.observe((max - free.available_permits()) as u64, &[]))
            .build();
        Self {
            routes,
            shared,
            admission,
            limits: limits.clone(),
            slots,
            handshakes: PendingHandshakes::default(),
            unlisted: Semaphore::new(max.div_ceil(UNLISTED_SHARE)),
            per_caller: KeyedQuota::new(limits.max_per_caller),
            memory: ConnectionMemory::new(limits.memory_quota, meter),
            workers,
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            closing: CancellationToken::new(),
            rejections: Rejections::new(meter),
            protocol_errors: ProtocolErrors::new(meter),
        }
    }

    /// Returns the open connections and the limits, for the status page.
    pub fn status(&self) -> status::Connections {
        let max_unlisted = self.limits.max.div_ceil(UNLISTED_SHARE);
        status::Connections {
            open: self.limits.max.saturating_sub(self.slots.available_permits()),
            max: self.limits.max,
            max_per_caller: self.limits.max_per_caller,
            unlisted: max_unlisted.saturating_sub(self.unlisted.available_permits()),
            max_unlisted,
            per_worker: self.workers.connections(),
            memory_bytes: self.memory.used(),
            memory_quota_bytes: self.limits.memory_quota,
        }
    }

    /// Serves a connection in a task of its own, on the worker with the fewest connections. A connection over the limit is
    /// closed at once, so that its client can use another instance.
    pub(super) fn open(self: &Arc<Self>, stream: Stream) {
        let from = listener::peer(&stream);
        let Ok(slot) = self.slots.clone().try_acquire_owned() else {
            return self.reject(from, Rejection::Limit, &"max_connections reached");
        };
        let stream = match listener::into_std(stream) {
            Ok(stream) => stream,
            Err(error) => return self.reject(from, Rejection::Limit, &error),
        };
        if self.slots.available_permits() < self.limits.max / UNLISTED_SHARE {
            self.handshakes.evict_oldest();
        }
        let closing = self.closing.child_token();
        let handshake = self.handshakes.register(&closing);
        let evicted = handshake.evicted.clone();
        let worker = self.workers.least_loaded();
        let runtime = worker.runtime.clone();
        let connections = self.clone();
        let connection = async move {
            match listener::from_std(stream) {
                Ok(stream) => tokio::select! {
                    biased; // so that an evicted connection sends GOAWAY
                    () = connections.serve(stream, from, handshake, closing.clone()) => {}
                    () = evicted.cancelled() => if !closing.is_cancelled() {
                        connections.reject(from, Rejection::HandshakeEvicted, &"evicted by a newer connection");
                    }
                },
                Err(error) => connections.reject(from, Rejection::Limit, &error),
            }
            drop::<(_, OwnedSemaphorePermit)>((worker, slot));
        };
        self.tasks.spawn_on(connection, &runtime);
    }

    /// Drains every connection and waits until all are closed.
    pub(super) async fn drain(&self) {
        self.draining.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Closes the remaining connections.
    pub(super) fn close(&self) {
        self.closing.cancel();
    }

    /// Serves a connection until it ends. It is evicted with `closing`.
    async fn serve(
        &self,
        stream: Stream,
        from: Option<SocketAddr>,
        handshake: PendingHandshake,
        closing: CancellationToken,
    ) {
        let deadline = clock::monotonic() + self.limits.handshake_timeout;
        let user = match &stream {
            Either::Right(unix) => unix.peer_cred().ok().and_then(|peer| identity::user(peer.uid())),
            Either::Left(_) => None,
        };
        let stream = match &self.admission.tls {
            None => Either::Left(stream),
            Some(tls) => match timeout_at(deadline, tls.acceptor().accept(stream)).await {
                Ok(Ok(stream)) => Either::Right(stream),
                Ok(Err(error)) if tls::is_disconnect(&error) => return, // a probe of the port, for example
                Ok(Err(error)) => return self.reject(from, Rejection::Tls, &error),
                Err(elapsed) => return self.reject(from, Rejection::HandshakeTimeout, &elapsed),
            },
        };
        let certificate = match &stream {
            Either::Right(tls) => tls.get_ref().1.peer_certificates().and_then(<[_]>::first),
            Either::Left(_) => None,
        };
        let policy = &self.admission.policy;
        let peer = match self.admission.source {
            IdentitySource::PeerUser => Peer::Direct(policy.resolve(user.as_slice())),
            IdentitySource::ForwardedHeader(elements) => Peer::Forwarded(policy.clone(), elements),
            IdentitySource::ClientCertificate => Peer::Direct(peer::of_certificate(certificate, policy)),
            IdentitySource::None => Peer::Direct(Caller::default()),
        };
        let _permits = match self.admit(&peer) {
            Ok(permits) => permits,
            Err((rejection, text)) => return self.reject(from, rejection, &text),
        };
        // An unlisted caller gets its status, and does not occupy a slot for longer than a handshake.
        let age =
            if peer.is_unlisted(policy) { self.limits.handshake_timeout } else { jitter::spread(self.limits.max_age) };
        let draining = CancellationToken::new();
        let account = self.memory.open(closing, draining.clone());
        let service = stack::stack(self.routes.clone(), &self.shared, peer, account.clone(), draining.clone());
        let (io, watch) = http2_guard::guard(
            stream,
            self.limits.max_control_frames,
            self.protocol_errors.clone(),
            handshake,
            account,
            self.limits.keep_alive_timeout,
        );
        self.http2(io, service, from, watch.timed_out(deadline), age, draining).await;
    }

    /// Returns the permits of an identified connection, or why it is rejected.
    fn admit(&self, peer: &Peer) -> Result<ConnectionPermits<'_>, (Rejection, &'static str)> {
        let unlisted = if peer.is_unlisted(&self.admission.policy) {
            Some(self.unlisted.try_acquire().map_err(|_| (Rejection::Limit, "limit of unlisted callers reached"))?)
        } else {
            None
        };
        let caller = peer.identity().map(|caller| {
            let permit = self.per_caller.try_acquire(caller, 1);
            permit.ok_or((Rejection::LimitPerCaller, "max_connections_per_caller reached"))
        });
        Ok(ConnectionPermits { _unlisted: unlisted, _caller: caller.transpose()? })
    }

    /// Serves HTTP/2 until the connection reaches its `age`, the gateway drains, or the peer closes.
    async fn http2(
        &self,
        io: GuardedIo<impl AsyncRead + AsyncWrite + Send + Unpin + 'static>,
        service: impl CallService,
        from: Option<SocketAddr>,
        handshake_timed_out: impl Future<Output = &'static str>,
        age: Duration,
        draining: CancellationToken,
    ) {
        let has_ended = io.has_ended();
        let panics = self.shared.panics().clone();
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_local_error_reset_streams(MAX_RESETS)
            .max_send_buf_size(MAX_SEND_BUFFER)
            .max_concurrent_streams(self.limits.max_concurrent_streams)
            .max_header_list_size(self.limits.max_header_list_size)
            .initial_stream_window_size(self.limits.initial_stream_window_size)
            .initial_connection_window_size(self.limits.initial_connection_window_size)
            .keep_alive_interval(self.limits.keep_alive_interval)
            .keep_alive_timeout(self.limits.keep_alive_timeout)
            // `TowerToHyperService` would make the future of each call larger by the request, to wait for a service that is
            // always ready.
            .serve_connection(TokioIo::new(io), service_fn(move |request| panics.call(&mut service.clone(), request)));
        let mut connection = pin!(connection);
        tokio::select! {
            biased; // a random order costs more
            ended = connection.as_mut() => return self.record_end(from, ended, &has_ended),
            error = handshake_timed_out => return self.reject(from, Rejection::HandshakeTimeout, &error),
            () = self.draining.cancelled() => {}
            () = draining.cancelled() => {} // evicted
            // Clients reconnect, perhaps to another instance. The jitter keeps them from doing so at the same time.
            () = sleep(age) => {}
        }
        connection.as_mut().graceful_shutdown(); // GOAWAY: calls that arrived before it finish
        draining.cancel();
        tokio::select! {
            ended = connection => self.record_end(from, ended, &has_ended),
            () = sleep(self.shared.max_duration() + LINGER), if !self.draining.is_cancelled() => {
                tracing::debug!(from = from.map(tracing::field::display), "connection did not close in time");
            }
        }
    }

    fn reject(&self, from: Option<SocketAddr>, rejection: Rejection, error: &dyn Display) {
        let reason = rejection.reason();
        tracing::debug!(from = from.map(tracing::field::display), reason, %error, "connection rejected");
        self.rejections.count(rejection);
    }

    fn record_end(&self, from: Option<SocketAddr>, ended: hyper::Result<()>, has_ended: &AtomicBool) {
        match ended {
            Ok(()) => has_ended.store(true, Relaxed),
            Err(error) => {
                tracing::debug!(from = from.map(tracing::field::display), %error, "connection error");
                self.protocol_errors.count_error(&error);
            }
        }
    }
}
