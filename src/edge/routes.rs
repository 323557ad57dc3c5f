//! Everything that is served: our service, health and reflection, each with its limits.

use std::sync::Arc;

use tonic::{
    Request, Status,
    codec::CompressionEncoding,
    service::{Routes, interceptor::InterceptedService},
};
use tonic_health::{
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

use crate::{
    caller::{Caller, Callers},
    config,
    error::{Error, Progress},
    proto::{self, certificate_service_server::CertificateServiceServer},
    service::Gateway,
    status,
};

/// The longest question to health or reflection, in bytes: a name and little more.
const QUESTION: usize = 4096;

/// The services by their paths. Requests may be compressed, `max_message_size` is what they inflate to at most; answers
/// never are: there is little to gain, and the length of a compressed secret tells of it.
pub fn new(
    config: &config::Server,
    gateway: Gateway,
    callers: Arc<Callers>,
    health: &HealthReporter,
) -> Result<Routes, tonic_reflection::server::Error> {
    // Each service is a type of its own, with no trait for what they share.
    macro_rules! limited {
        ($service:expr, $size:expr) => {
            $service.max_decoding_message_size($size).accept_compressed(CompressionEncoding::Gzip)
        };
    }
    let health = HealthServer::new(HealthService::from_health_reporter(health.clone()));
    let mut routes = Routes::new(limited!(CertificateServiceServer::new(gateway), config.max_message_size))
        .add_service(limited!(health, QUESTION));
    if config.reflection {
        let builder = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(proto::DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let listed = move |request: Request<()>| listed(&callers, request);
        routes = routes
            .add_service(InterceptedService::new(limited!(builder().build_v1()?, QUESTION), listed.clone()))
            .add_service(InterceptedService::new(limited!(builder().build_v1alpha()?, QUESTION), listed));
    }
    Ok(routes.prepare())
}

/// Lets those pass who may call something: what is served is their business. Health is everybody's.
fn listed(callers: &Callers, request: Request<()>) -> Result<Request<()>, Status> {
    let caller = request.extensions().get::<Caller>().cloned().unwrap_or_default();
    let refused = |reason| status::render(Error::new(reason, Progress::NotSent));
    callers.may_look(&caller).map_err(refused).map(|()| request)
}
