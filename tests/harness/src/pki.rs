//! A certificate authority for servers and clients, and connections with its certificates.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Error, Identity};

use crate::folder::Folder;

pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Returns the configuration of a server that requires client certificates of an authority.
pub fn mutual_tls(server: &Issued, client_ca: &str) -> ServerConfig {
    let certificates =
        |pem: &str| CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect::<Vec<_>>();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(client_ca));
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
    let key = PrivateKeyDer::from_pem_slice(server.key.as_bytes()).unwrap();
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    builder.with_client_cert_verifier(verifier).with_single_cert(certificates(&server.certificate), key).unwrap()
}

/// A certificate and its key, in PEM.
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

pub fn uri(uri: &str) -> SanType {
    SanType::URI(uri.try_into().unwrap())
}

pub fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    /// Issues a certificate for the gateway, valid until 2050.
    pub fn server(&self) -> Issued {
        self.issue(vec![dns("localhost")], ExtendedKeyUsagePurpose::ServerAuth, 2050)
    }

    /// Issues a client certificate with these names and the CN `admin`.
    pub fn client(&self, names: Vec<SanType>) -> Issued {
        self.issue(names, ExtendedKeyUsagePurpose::ClientAuth, 2050)
    }

    pub fn issue(&self, names: Vec<SanType>, usage: ExtendedKeyUsagePurpose, until: i32) -> Issued {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "admin");
        params.subject_alt_names = names;
        params.extended_key_usages = vec![usage];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// Writes the files of `[server.tls]`, and returns its variables.
    pub fn variables(&self, folder: &Folder, client_ca: Option<&str>) -> Vec<(&'static str, String)> {
        let server = self.server();
        let mut variables = vec![
            ("SCM_GATEWAY__SERVER__TLS__CERT_FILE", folder.file("tls.crt", &server.certificate)),
            ("SCM_GATEWAY__SERVER__TLS__KEY_FILE", folder.file("tls.key", &server.key)),
        ];
        variables.extend(client_ca.map(|pem| ("SCM_GATEWAY__SERVER__TLS__CLIENT_CA_FILE", folder.file("ca.crt", pem))));
        variables
    }

    /// Connects to a gateway that has a certificate of this authority.
    pub async fn connect(&self, address: &str, client: Option<&Issued>) -> Result<Channel, Error> {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.pem)).domain_name("localhost");
        if let Some(Issued { certificate, key }) = client {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap().connect().await
    }
}
