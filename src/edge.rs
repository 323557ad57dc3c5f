//! The gRPC listener: its stack of layers, its accept loop, its drain.

use std::{convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::{sleep, sleep_until};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Status, body::Body};
use tower::{Service, ServiceBuilder};

use crate::{
    call::Call, caller::Callers, clock, config, error::Error, proto::certificate_service_server::CertificateService,
    status, telemetry::Telemetry,
};

mod beginnings;
mod catch_panic;
pub mod connections;
mod deadline;
mod guard;
mod identity;
pub mod listener;
mod message_size;
mod observe;
mod one_message;
mod own_streams;
mod protocol;
pub mod routes;
mod strangers;
pub mod tls;
mod unfinished;
mod well_formed;

use connections::Connections;
use listener::Listener;
use routes::Routes;

/// Paths of gRPC's own services, health and reflection.
const GRPC_OWN: &str = "/grpc.";

/// Paths of reflection, whose calls take a stream of messages.
const REFLECTION: &str = "/grpc.reflection.";

/// One in so many of what all share may be strangers': those of whom it is not known, or not listed, who they are.
const STRANGERS: usize = 8;

/// Pause after an accept that failed: out of file descriptors, the loop must not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a peer has to take its last answers once all calls are done.
const LINGER: Duration = Duration::from_secs(1);

/// What answers calls: the layers around the services, a clone a call.
pub trait CallService:
    Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<S> CallService for S where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

/// The layers around the services, outermost first. No call takes longer than `most`, and those that are not over hold no
/// more than `config` says.
pub fn stack<T: CertificateService>(
    routes: Routes<T>,
    telemetry: Arc<Telemetry>,
    calls: TaskTracker,
    callers: Arc<Callers>,
    most: Duration,
    config: &config::Server,
) -> impl CallService {
    let meter = telemetry.meter.clone();
    let initial_stream_window_size = config.connections.windows.0;
    let room = Arc::new(unfinished::Room::new(&config.unfinished, initial_stream_window_size, callers.clone()));
    ServiceBuilder::new()
        // First, for span, metric and log have to show what all the others answer.
        .layer_fn({
            let callers = callers.clone();
            move |inner| observe::Observe::new(inner, telemetry.clone(), calls.clone(), callers.clone())
        })
        // Inside the span, for a panic is an answer too.
        .layer_fn(move |inner| catch_panic::CatchPanic::new(inner, &meter))
        // Before anything is read: what is not gRPC is told so in HTTP.
        .layer_fn(protocol::Protocol::new)
        // Before anything is waited for.
        .layer_fn(move |inner| strangers::Strangers::new(inner, callers.clone()))
        // Around everything that can take time.
        .layer_fn(move |inner| deadline::Deadline::new(inner, most))
        // Inside the deadline, which ends what is never finished.
        .layer_fn(move |inner| unfinished::Unfinished::new(inner, room.clone()))
        // Next to tonic, whose answer to a message too large it corrects.
        .layer_fn(message_size::MessageSize::new)
        .service(routes)
}

/// Fails a call. Questions to health and reflection are not observed, and have none.
fn fail(call: Option<&Arc<Call>>, error: Error) -> Status {
    match call {
        Some(call) => call.fail(error),
        None => status::render(error),
    }
}

/// Serves connections until `stop` is done, then drains: no new connection, GOAWAY on the others, calls in flight
/// finish. Shortly before `drain` is over, `abandon` is cancelled, and calls still running are to answer at once.
pub async fn serve<S: CallService>(
    listener: Listener,
    service: S,
    stop: impl Future<Output = ()>,
    calls: TaskTracker,
    connections: Connections,
    drain: Duration,
    abandon: CancellationToken,
) {
    let connections = Arc::new(connections);
    accept(&listener, service, stop, &connections).await;
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
        () = connections.drain() => return,
        () = quiet => {}
        () = abandoned => {}
    }
    connections.close();
    tracing::info!("drain deadline reached, closing the remaining connections");
}

async fn accept<S: CallService>(
    listener: &Listener,
    service: S,
    stop: impl Future<Output = ()>,
    connections: &Arc<Connections>,
) {
    let (mut stop, mut failing) = (pin!(stop), false);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(stream) => {
                if std::mem::take(&mut failing) {
                    tracing::info!("accepting connections again");
                }
                connections.open(stream, service.clone());
            }
            // Its client has given up while it waited.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "cannot accept connections");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
