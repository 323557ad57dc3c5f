//! Everything that is served: our service, health and reflection, each with its limits.

use tonic::{codec::CompressionEncoding, service::Routes};
use tonic_health::{
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

use crate::{
    config,
    proto::{self, certificate_service_server::CertificateServiceServer},
    service::Gateway,
};

/// The longest question to health or reflection, in bytes: a name and little more.
pub(super) const QUESTION: usize = 4096;

/// The services by their paths. Requests may be compressed, `max_message_size` is what they inflate to at most; answers
/// never are: there is little to gain, and the length of a compressed secret tells of it.
pub fn new(
    config: &config::Server,
    gateway: Gateway,
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
        routes = routes
            .add_service(limited!(builder().build_v1()?, QUESTION))
            .add_service(limited!(builder().build_v1alpha()?, QUESTION));
    }
    Ok(routes.prepare())
}
