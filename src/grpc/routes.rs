//! The services that are served: the RPC services, health and reflection, each with its limits.

use std::{convert::Infallible, future::ready, sync::Arc, task};

use bytes::Bytes;
use futures_util::future::{BoxFuture, Either};
use http::{Request, Response};
use tonic::{Status, body::Body, codec::CompressionEncoding, service};
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::pb::v1::server_reflection_server::ServerReflectionServer;
use tower::Service;

use crate::{
    config,
    grpc::{
        gateway::Gateway,
        health::Health,
        reflection::{Reflection, V1Alpha},
    },
};

/// The path prefix of gRPC's own services: health and reflection.
pub(super) const BUILTIN_PREFIX: &str = "/grpc.";

/// The path prefix of reflection, whose calls are streams.
pub(super) const REFLECTION_PREFIX: &str = "/grpc.reflection.";

/// The longest request to health or reflection, in bytes: a service name and little more.
pub(super) const MAX_BUILTIN_REQUEST: usize = 4096;

/// Limits a service of tonic. tonic's services have no common trait for these settings.
macro_rules! limited {
    ($service:expr, $size:expr) => {
        $service.max_decoding_message_size($size).accept_compressed(CompressionEncoding::Gzip)
    };
}

/// Builds the routes. Requests may be compressed; `max_message_size` limits the decompressed size. Responses are never
/// compressed, because there is little to gain and the length of a compressed secret reveals something of it.
pub fn all(config: &config::Server, gateway: Gateway, health: &Health) -> Routes<Rpcs> {
    let health = HealthServer::new(health.service());
    let mut builtin = service::Routes::new(limited!(health, MAX_BUILTIN_REQUEST));
    if config.reflection {
        let reflection = limited!(ServerReflectionServer::new(Reflection), MAX_BUILTIN_REQUEST);
        builtin = builtin.add_service(reflection.clone()).add_service(V1Alpha(reflection));
    }
    let rpcs = Rpcs { gateway: Arc::new(gateway), max_message_size: config.max_message_size };
    Routes::new(rpcs, builtin)
}

/// The RPC services, all by the same gateway.
#[derive(Clone)]
pub struct Rpcs {
    gateway: Arc<Gateway>,
    max_message_size: usize,
}

include!(concat!(env!("OUT_DIR"), "/routes.rs"));

impl<B> Service<Request<B>> for Rpcs
where
    B: hyper::body::Body<Data = Bytes, Error = Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        task::Poll::Ready(Ok(())) // every service is always ready
    }

    /// tonic's services differ in type, and are made for each call. That costs no more than to clone one.
    fn call(&mut self, request: Request<B>) -> Self::Future {
        macro_rules! call {
            ($server:ty) => {
                limited!(<$server>::from_arc(self.gateway.clone()), self.max_message_size).call(request)
            };
        }
        let service = request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
        route!(service.map(|(service, _)| service), call, Box::pin(ready(Ok(unimplemented()))))
    }
}

/// Returns the response to a call of an unknown service.
fn unimplemented() -> Response<Body> {
    Status::unimplemented("").into_http()
}

/// The RPC services and gRPC's own services.
///
/// An RPC service is found without tonic's router, which would box requests and responses once more: 5,000 instructions a
/// call. `S` carries out the calls.
#[derive(Clone)]
pub struct Routes<S> {
    rpcs: S,
    builtin: service::Routes,
}

impl<S> Routes<S> {
    /// Creates the routes.
    pub fn new(rpcs: S, builtin: service::Routes) -> Self {
        Self { rpcs, builtin: builtin.prepare() }
    }
}

impl<S, B> Service<Request<B>> for Routes<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    B: hyper::body::Body<Data = Bytes, Error = Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, <service::Routes as Service<Request<B>>>::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        self.rpcs.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if request.uri().path().starts_with(BUILTIN_PREFIX) {
            Either::Right(self.builtin.call(request))
        } else {
            Either::Left(self.rpcs.call(request))
        }
    }
}
