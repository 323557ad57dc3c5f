//! TLS of the listener: version 1.3, HTTP/2 by ALPN, and client certificates if a client CA is configured. Reloaded
//! certificates apply to new connections.

use std::{io, sync::Arc, time::SystemTime};

use opentelemetry::{KeyValue, metrics::Meter};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs::default_provider,
    pki_types::CertificateDer,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::SingleCertAndKey,
    version::TLS13,
};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::{
    clock::{Clock, seconds_between},
    config::{self, TlsMaterial},
    ops::{status, telemetry::reload_metrics::ReloadState},
};

/// The TLS configuration of new connections.
pub struct Tls {
    served: watch::Sender<Served>,
    pub(crate) reload_state: ReloadState,
}

/// A certificate in use.
struct Served {
    config: Arc<ServerConfig>,
    server_expiry: Option<SystemTime>,
    client_ca_expiry: Option<SystemTime>,
}

impl Tls {
    /// Creates the configuration from the contents of the files.
    pub fn new(material: &TlsMaterial) -> Result<Arc<Self>, rustls::Error> {
        let served = watch::Sender::new(served(material)?);
        Ok(Arc::new(Self { served, reload_state: ReloadState::default() }))
    }

    /// Replaces the configuration of new connections. Open connections keep theirs.
    pub fn replace(&self, material: &TlsMaterial) -> Result<(), rustls::Error> {
        self.served.send_replace(served(material)?);
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.served.borrow().config.clone().into()
    }

    /// Returns the state of the certificates, for the status page.
    pub fn status(&self) -> status::Tls {
        let served = self.served.borrow();
        status::Tls {
            reload_failing: self.reload_state.is_failing(),
            certificate_expires_at: served.server_expiry.map(Into::into),
            client_ca_expires_at: served.client_ca_expiry.map(Into::into),
        }
    }

    /// Registers the gauge of the time to expiry.
    pub fn register_metrics(self: &Arc<Self>, meter: &Meter, clock: Clock) {
        let tls = self.clone();
        let _ = meter
            .f64_observable_gauge("scm_gateway.tls.certificate.time_to_expiry")
            .with_unit("s")
            .with_description(
                "Time until a certificate of the listener expires: its own, or the first client CA to expire",
            )
            .with_callback(move |gauge| {
                let served = tls.served.borrow();
                let now = clock.now();
                for (certificate, expiry) in [("server", served.server_expiry), ("client_ca", served.client_ca_expiry)]
                {
                    if let Some(expiry) = expiry {
                        gauge
                            .observe(seconds_between(now, expiry) as f64, &[KeyValue::new("certificate", certificate)]);
                    }
                }
            })
            .build();
    }
}

fn served(material: &TlsMaterial) -> Result<Served, rustls::Error> {
    let provider = Arc::new(default_provider());
    let verifier = material.client_ca.as_deref().map(verifier).transpose()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier.unwrap_or_else(WebPkiClientVerifier::no_client_auth))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(material.certified_key.clone())));
    config.alpn_protocols = vec![b"h2".to_vec()];
    // No session resumption, so that each connection is checked against the current client CAs.
    config.send_tls13_tickets = 0;
    Ok(Served {
        config: Arc::new(config),
        server_expiry: first_expiry(&material.certified_key.cert),
        client_ca_expiry: material.client_ca.as_deref().and_then(first_expiry),
    })
}

/// Returns a verifier for these client CAs. A client without a certificate completes the handshake and gets
/// UNAUTHENTICATED, because a failed handshake would look like a network failure.
fn verifier(authorities: &[CertificateDer<'static>]) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities.iter().cloned());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
        .allow_unauthenticated()
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))
}

fn first_expiry(certificates: &[CertificateDer<'_>]) -> Option<SystemTime> {
    certificates.iter().filter_map(config::expiry).min()
}

/// Returns whether the peer has closed the connection.
pub(super) fn is_disconnect(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}
