//! The connections: how many there may be, how each is served, aged and ended.

use std::{pin::pin, sync::Arc, time::Duration};

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
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{CallService, handshake, listener::Stream};
use crate::{chance, config};

/// Calls given up before they were looked at, per connection: many impatient callers may share one, and h2's default of
/// 20 would end it for all of them.
const MAX_PENDING_RESETS: usize = 400;

/// All connections of a listener.
pub struct Connections {
    limits: config::Connections,
    /// How long a connection may take to end once it was told to.
    grace: Duration,
    places: Arc<Semaphore>,
    running: TaskTracker,
    /// Every connection is told to end.
    drained: CancellationToken,
    /// Every connection ends.
    closed: CancellationToken,
    refused: Counter<u64>,
}

impl Connections {
    /// None yet. No call takes longer than `call`.
    pub fn new(limits: &config::Connections, call: Duration, meter: &Meter) -> Self {
        let most = limits.max;
        let places = Arc::new(Semaphore::new(most));
        let open = places.clone();
        let _ = meter
            .u64_observable_gauge("scm_gateway.connections.open")
            .with_description("Connections of callers")
            .with_callback(move |gauge| gauge.observe((most - open.available_permits()) as u64, &[]))
            .build();
        Self {
            limits: limits.clone(),
            grace: call + super::LINGER,
            places,
            running: TaskTracker::new(),
            drained: CancellationToken::new(),
            closed: CancellationToken::new(),
            refused: meter
                .u64_counter("scm_gateway.connections.refused")
                .with_description("Connections that were closed before their first call, by reason")
                .build(),
        }
    }

    /// Serves a connection in a task of its own. One too many is closed at once: its client learns it and can go
    /// elsewhere.
    pub(super) fn open(self: &Arc<Self>, stream: Stream, service: impl CallService) {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            self.refuse("limit");
            return;
        };
        let (all, closed) = (self.clone(), self.closed.clone());
        self.running.spawn(async move {
            tokio::select! {
                () = all.http2(stream, service) => {}
                () = closed.cancelled() => {}
            }
            drop(place);
        });
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

    async fn http2(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, service: impl CallService) {
        let (stream, overdue) = handshake::watch(stream);
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_concurrent_streams(self.limits.max_streams)
            .max_header_list_size(self.limits.max_header_list_size)
            .initial_stream_window_size(self.limits.windows.0)
            .initial_connection_window_size(self.limits.windows.1)
            .keep_alive_interval(self.limits.keep_alive.0)
            .keep_alive_timeout(self.limits.keep_alive.1)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let mut connection = pin!(connection);
        // The first of these to happen ends it, or begins its end.
        tokio::select! {
            ended = connection.as_mut() => return log(ended),
            () = overdue.after(self.limits.handshake_timeout) => return self.refuse("handshake"),
            () = self.drained.cancelled() => {}
            // Clients come back, to another instance perhaps; not all at the same time.
            () = sleep(chance::about(self.limits.max_age)) => {}
        }
        connection.as_mut().graceful_shutdown(); // GOAWAY: what came before it is answered
        tokio::select! {
            ended = connection => log(ended),
            () = sleep(self.grace), if !self.drained.is_cancelled() => {
                tracing::debug!("a connection did not end in time");
            }
        }
    }

    fn refuse(&self, reason: &'static str) {
        tracing::debug!(reason, "a connection was refused");
        self.refused.add(1, &[KeyValue::new("reason", reason)]);
    }
}

fn log(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}
