//! The gRPC listener: its stack of layers, its accept loop, its drain.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{sleep, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{body::Body, service::Routes};
use tower::{Service, ServiceBuilder};

use crate::{clock, config, telemetry::Telemetry};

mod catch_panic;
mod deadline;
mod guard;
pub mod listener;
mod message_size;
mod observe;
mod one_message;
mod protocol;
mod well_formed;

use listener::Listener;

/// Paths of gRPC's own services, health and reflection.
const GRPC_OWN: &str = "/grpc.";

/// Pause after an accept that failed: out of file descriptors, the loop must not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Calls given up before they were looked at, per connection: many impatient callers may share one, and h2's default of
/// 20 would end it for all of them.
const MAX_PENDING_RESETS: usize = 400;

/// How long a peer has to take its last answers once all calls are done.
const LINGER: Duration = Duration::from_secs(1);

/// The layers around the services, outermost first. No call takes longer than `most`.
pub fn stack(
    routes: Routes,
    telemetry: Arc<Telemetry>,
    calls: TaskTracker,
    most: Duration,
) -> impl Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static
{
    ServiceBuilder::new()
        // First, for span, metric and log have to show what all the others answer.
        .layer_fn(move |inner| observe::Observe::new(inner, telemetry.clone(), calls.clone()))
        // Inside the span, for a panic is an answer too.
        .layer_fn(catch_panic::CatchPanic::new)
        // Before anything is read: what is not gRPC is told so in HTTP.
        .layer_fn(protocol::Protocol::new)
        // Around everything that can take time.
        .layer_fn(move |inner| deadline::Deadline::new(inner, most))
        // Next to tonic, whose answer to a message too large it corrects.
        .layer_fn(message_size::MessageSize::new)
        .service(routes)
}

/// Serves connections until `stop` is done, then drains: no new connection, GOAWAY on the others, calls in flight
/// finish. Shortly before `drain` is over, `abandon` is cancelled, and calls still running are to answer at once.
pub async fn serve<S>(
    listener: Listener,
    service: S,
    stop: impl Future<Output = ()>,
    calls: TaskTracker,
    config: &config::Server,
    drain: Duration,
    abandon: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    let graceful = GracefulShutdown::new();
    accept(&listener, service, stop, &graceful, &config.connection).await;
    drop(listener);
    let end = clock::steady() + drain;
    let last_call = end - (drain / 4).min(Duration::from_millis(500));
    calls.close();
    let quiet = async {
        // A call that was on its way when GOAWAY went out may come in when all others are done.
        loop {
            calls.wait().await;
            sleep(LINGER).await;
            if calls.is_empty() {
                return;
            }
        }
    };
    let abandoned = async {
        sleep_until(last_call).await;
        abandon.cancel();
        sleep_until(end).await;
    };
    tokio::select! {
        () = graceful.shutdown() => return,
        () = quiet => {}
        () = abandoned => {}
    }
    tracing::info!("connections that did not close in time were closed");
}

async fn accept<S>(
    listener: &Listener,
    service: S,
    stop: impl Future<Output = ()>,
    graceful: &GracefulShutdown,
    limits: &config::Connection,
) where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(stream) => {
                tokio::spawn(connection(stream, service.clone(), graceful.watcher(), limits.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection<S>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    service: S,
    watcher: Watcher,
    limits: config::Connection,
) where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    let (stream, overdue) = guard::guard(stream, limits.max_other_frames);
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(limits.max_header_list_size)
        .initial_stream_window_size(limits.windows.0)
        .initial_connection_window_size(limits.windows.1)
        .keep_alive_interval(limits.keep_alive.0)
        .keep_alive_timeout(limits.keep_alive.1)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(well_formed::WellFormed::new(service)));
    tokio::select! {
        ended = watcher.watch(connection) => if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended");
        },
        () = overdue.after(limits.handshake_timeout) => tracing::debug!("a connection did not begin in time"),
    }
}
