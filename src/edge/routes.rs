//! Everything that is served: our service, health and reflection, each with its limits.

use std::{convert::Infallible, task};

use bytes::Bytes;
use futures_util::future::Either;
use http::{Request, Response};
use tonic::{body::Body, codec::CompressionEncoding, service};
use tonic_health::{
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};
use tower::Service;

use crate::{
    config,
    proto::{
        self,
        certificate_service_server::{CertificateService, CertificateServiceServer, SERVICE_NAME},
    },
    service::Gateway,
};

/// The longest question to health or reflection, in bytes: a name and little more.
pub(super) const QUESTION: usize = 4096;

/// The services by their paths. Requests may be compressed, `max_message_size` is what they inflate to at most; answers
/// never are: there is little to gain, and the length of a compressed secret tells of it.
pub fn all(
    config: &config::Server,
    gateway: Gateway,
    health: &HealthReporter,
) -> Result<Routes<Gateway>, tonic_reflection::server::Error> {
    // Each service is a type of its own, with no trait for what they share.
    macro_rules! limited {
        ($service:expr, $size:expr) => {
            $service.max_decoding_message_size($size).accept_compressed(CompressionEncoding::Gzip)
        };
    }
    let health = HealthServer::new(HealthService::from_health_reporter(health.clone()));
    let mut others = service::Routes::new(limited!(health, QUESTION));
    if config.reflection {
        let builder = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(proto::DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        others = others
            .add_service(limited!(builder().build_v1()?, QUESTION))
            .add_service(limited!(builder().build_v1alpha()?, QUESTION));
    }
    let ours = limited!(CertificateServiceServer::new(gateway), config.max_message_size);
    Ok(Routes::new(ours, others))
}

/// The one service of the proto (`build.rs` allows no other), found without tonic's router, which would box requests and
/// answers once more; and gRPC's own. `T` is what carries the calls out.
pub struct Routes<T> {
    ours: CertificateServiceServer<T>,
    others: service::Routes,
}

impl<T> Routes<T> {
    /// This one and the others.
    pub fn new(ours: CertificateServiceServer<T>, others: service::Routes) -> Self {
        Self { ours, others: others.prepare() }
    }
}

impl<T> Clone for Routes<T> {
    fn clone(&self) -> Self {
        Self { ours: self.ours.clone(), others: self.others.clone() }
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
        task::Poll::Ready(Ok(())) // all of them always are
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let service = request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
        match service {
            Some((SERVICE_NAME, _)) => Either::Left(self.ours.call(request)),
            _ => Either::Right(self.others.call(request)),
        }
    }
}
