//! The inbound stack: every layer, in order.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::body::Incoming;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::body::Body;
use tower::{Service, ServiceBuilder};

use super::{
    auth::{AccessPolicy, peer::Peer},
    layer::{
        catch_panic::PanicHandler,
        charge_response::{ChargeResponse, ChargedBody},
        deadline::Deadline,
        decompress::{Decompress, DecompressedBody},
        max_stream_duration::MaxStreamDuration,
        memory_quota::{MemoryQuota, QuotaBody, QuotaPool},
        message_size::MessageSize,
        peer_identity::PeerIdentity,
        reject_malformed::RejectMalformed,
        render_errors::RenderErrors,
        require_grpc::RequireGrpc,
        require_listed::RequireListed,
        trace::Trace,
        unary_body::UnaryBody,
    },
    limit::connection_memory::Account,
    routes::Routes,
};
use crate::{config, error::Error, ops::telemetry::Telemetry};

/// The service of a connection: the layers around the routes. Each request uses a clone.
pub(super) trait CallService:
    Service<Request<Incoming>, Response = Response<ChargedBody>, Error = h2::Error, Future: Send> + Clone + Send + 'static
{
}

impl<S> CallService for S where
    S: Service<Request<Incoming>, Response = Response<ChargedBody>, Error = h2::Error, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// The request body as it reaches the RPC services.
pub type CallBody = DecompressedBody<QuotaBody<UnaryBody<Incoming>>>;

/// The RPC services. Each request uses a clone.
pub trait RpcService:
    Service<Request<CallBody>, Response = Response<Body>, Error = Infallible, Future: Send + Unpin>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> RpcService for S where
    S: Service<Request<CallBody>, Response = Response<Body>, Error = Infallible, Future: Send + Unpin>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// What the stacks of all connections share.
pub struct Shared {
    trace: super::layer::trace::Shared,
    panics: PanicHandler,
    policy: Arc<AccessPolicy>,
    quota: Arc<QuotaPool>,
    /// The longest duration of a call.
    max_duration: Duration,
    max_message_size: usize,
}

impl Shared {
    /// Creates the shared state. `calls` tracks the calls in flight.
    pub fn new(
        telemetry: Arc<Telemetry>,
        calls: TaskTracker,
        policy: Arc<AccessPolicy>,
        max_duration: Duration,
        config: &config::Server,
    ) -> Self {
        let stream_window = config.connections.initial_stream_window_size;
        Self {
            panics: PanicHandler::new(&telemetry.meter),
            quota: Arc::new(QuotaPool::new(&config.memory_quota, stream_window, policy.clone())),
            trace: super::layer::trace::Shared::new(telemetry, calls, policy.clone()),
            policy,
            max_duration,
            max_message_size: config.max_message_size,
        }
    }

    /// Returns what catches panics.
    pub(super) fn panics(&self) -> &PanicHandler {
        &self.panics
    }

    /// Returns the longest duration of a call.
    pub(super) fn max_duration(&self) -> Duration {
        self.max_duration
    }
}

/// Builds the stack of one connection, outermost layer first. `draining` is cancelled when the connection starts to drain.
///
/// Between `RenderErrors` and the routes the error type is [`Error`]. Every layer has to be ready always, because
/// `poll_ready` is not called.
pub(super) fn stack<T: RpcService>(
    routes: Routes<T>,
    shared: &Shared,
    peer: Peer,
    account: Arc<Account>,
    draining: CancellationToken,
) -> impl CallService {
    ServiceBuilder::new()
        // Around every response, to charge it until it has left.
        .layer(ChargeResponse::layer(account))
        // Before all others, because a malformed request is a stream error: it is reset and does not count as a call.
        .layer(RejectMalformed::layer())
        // Outside the trace layer, because health and reflection streams are not calls.
        .layer(MaxStreamDuration::layer(draining, shared.max_duration))
        // Before the trace layer, which logs the caller.
        .layer(PeerIdentity::layer(peer))
        // Around everything that responds, so that span, metrics and audit line show every response.
        .layer(Trace::layer(shared.trace.clone()))
        // The one place where an error becomes a status.
        .layer(RenderErrors::layer())
        // Inside the span, because a panic is a response too.
        .layer(shared.panics.layer())
        // Before anything is read: a request that is not gRPC gets an HTTP status.
        .layer(RequireGrpc::layer())
        // Before anything is waited for.
        .layer(RequireListed::layer(shared.policy.clone()))
        // Around everything that can take time.
        .layer(Deadline::layer(shared.max_duration))
        // Inside the deadline, which bounds how long an incomplete request holds its quota.
        .layer(MemoryQuota::layer(shared.quota.clone()))
        // Inside the quota, which is charged with the bytes of an incomplete request.
        .layer(Decompress::layer(shared.max_message_size))
        // Next to tonic, whose status for an oversized message it corrects.
        .layer(MessageSize::layer())
        .map_err(|never: Infallible| -> Error { match never {} })
        .service(routes)
}
