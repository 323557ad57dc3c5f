//! The service `grpc.health.v1`: tonic-health's, except for watches of unknown services.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _, stream};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};
use tonic_health::{
    pb::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server},
    server::HealthService,
};

/// The health service.
///
/// The health protocol wants a watch of an unknown service to get SERVICE_UNKNOWN and to stay open. tonic-health ends it
/// with NOT_FOUND, which grpc-go's client-side health checking retries without end.
pub(in crate::grpc) struct Service {
    inner: HealthService,
    /// Cancelled when all watches end.
    ended: CancellationToken,
}

impl Service {
    /// Creates the service. Cancelling `ended` ends the watches of unknown services.
    pub(super) fn new(inner: HealthService, ended: CancellationToken) -> Self {
        Self { inner, ended }
    }
}

#[tonic::async_trait]
impl health_server::Health for Service {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        self.inner.check(request).await
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        match self.inner.watch(request).await {
            Ok(watch) => Ok(watch.map(|statuses| statuses.boxed())),
            Err(status) if status.code() == Code::NotFound => {
                let unknown = HealthCheckResponse { status: ServingStatus::ServiceUnknown.into() };
                let statuses = stream::iter([Ok(unknown)]).chain(stream::pending());
                Ok(Response::new(statuses.take_until(self.ended.clone().cancelled_owned()).boxed()))
            }
            Err(status) => Err(status),
        }
    }
}
