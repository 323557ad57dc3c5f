//! TLS of the listener: 1.3, HTTP/2 by ALPN, and a client certificate where there is an authority for it. What is read
//! anew holds for connections from then on.

use std::{sync::Arc, time::SystemTime};

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
};

/// What new connections are greeted with.
pub struct Tls(watch::Sender<Served>);

/// A certificate in use.
struct Served {
    config: Arc<ServerConfig>,
    server_expiry: Option<SystemTime>,
    client_ca_expiry: Option<SystemTime>,
}

impl Tls {
    /// TLS with what the files hold.
    pub fn new(material: &TlsMaterial) -> Result<Arc<Self>, rustls::Error> {
        served(material).map(|served| Arc::new(Self(watch::Sender::new(served))))
    }

    /// Greets new connections with this from now on. The others stay.
    pub fn replace(&self, material: &TlsMaterial) -> Result<(), rustls::Error> {
        self.0.send_replace(served(material)?);
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.0.borrow().config.clone().into()
    }

    /// Tells how long the certificates are still good.
    pub fn measure(self: &Arc<Self>, meter: &Meter, clock: Clock) {
        let tls = self.clone();
        let _ = meter
            .f64_observable_gauge("scm_gateway.tls.certificate.time_to_expiry")
            .with_unit("s")
            .with_description(
                "Time until a certificate of the listener expires: its own, or the first client CA to expire",
            )
            .with_callback(move |gauge| {
                let (served, now) = (tls.0.borrow(), clock.now());
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
    // No resumption: each connection is checked against the authorities of its time.
    config.send_tls13_tickets = 0;
    Ok(Served {
        config: Arc::new(config),
        server_expiry: first_expiry(&material.certified_key.cert),
        client_ca_expiry: material.client_ca.as_deref().and_then(first_expiry),
    })
}

/// Of these authorities. A client without a certificate gets in, to be told UNAUTHENTICATED: a handshake that fails
/// looks to it like a network that does.
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
