//! The services that are served: the RPC service, health and reflection, each with its limits.

use std::{convert::Infallible, task};

use bytes::Bytes;
use futures_util::future::Either;
use http::{Request, Response};
use tonic::{body::Body, codec::CompressionEncoding, service};
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::pb::v1::server_reflection_server::ServerReflectionServer;
use tower::Service;

use crate::{
    config,
    grpc::{
        gateway::Gateway,
        health::Health,
        reflection::{Reflection, V1Alpha},
        service::certificate_service_server::{CertificateService, CertificateServiceServer, SERVICE_NAME},
    },
};

/// The path prefix of gRPC's own services: health and reflection.
pub(super) const BUILTIN_PREFIX: &str = "/grpc.";

/// The path prefix of reflection, whose calls are streams.
pub(super) const REFLECTION_PREFIX: &str = "/grpc.reflection.";

/// The longest request to health or reflection, in bytes: a service name and little more.
pub(super) const MAX_BUILTIN_REQUEST: usize = 4096;

/// Builds the routes. Requests may be compressed; `max_message_size` limits the decompressed size. Responses are never
/// compressed, because there is little to gain and the length of a compressed secret reveals something of it.
pub fn all(config: &config::Server, gateway: Gateway, health: &Health) -> Routes<Gateway> {
    // tonic's services have no common trait for these settings.
    macro_rules! limited {
        ($service:expr, $size:expr) => {
            $service.max_decoding_message_size($size).accept_compressed(CompressionEncoding::Gzip)
        };
    }
    let health = HealthServer::new(health.service());
    let mut builtin = service::Routes::new(limited!(health, MAX_BUILTIN_REQUEST));
    if config.reflection {
        let reflection = limited!(ServerReflectionServer::new(Reflection::new()), MAX_BUILTIN_REQUEST);
        builtin = builtin.add_service(reflection.clone()).add_service(V1Alpha(reflection));
    }
    let rpcs = limited!(CertificateServiceServer::new(gateway), config.max_message_size);
    Routes::new(rpcs, builtin)
}

/// The RPC service and gRPC's own services.
///
/// The RPC service is found without tonic's router, which would box requests and responses once more: 5,000 instructions
/// a call. `build.rs` allows only one service. `T` carries out the calls.
pub struct Routes<T> {
    rpcs: CertificateServiceServer<T>,
    builtin: service::Routes,
}

impl<T> Routes<T> {
    /// Creates the routes.
    pub fn new(rpcs: CertificateServiceServer<T>, builtin: service::Routes) -> Self {
        Self { rpcs, builtin: builtin.prepare() }
    }
}

impl<T> Clone for Routes<T> {
    fn clone(&self) -> Self {
        Self { rpcs: self.rpcs.clone(), builtin: self.builtin.clone() }
    }
}

impl<T, B> Service<Request<B>> for Routes<T>
where
    T: CertificateService,
    B: hyper::body::Body<Data = Bytes, Error = Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<
        <CertificateServiceServer<T> as Service<Request<B>>>::Future,
        <service::Routes as Service<Request<B>>>::Future,
    >;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        task::Poll::Ready(Ok(())) // every service is always ready
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let service = request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
        match service {
            Some((SERVICE_NAME, _)) => Either::Left(self.rpcs.call(request)),
            _ => Either::Right(self.builtin.call(request)),
        }
    }
}
