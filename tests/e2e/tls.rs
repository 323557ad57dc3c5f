//! TLS of the listener, and reload of certificates and trust roots.

use std::{fs, sync::Arc};

use rcgen::ExtendedKeyUsagePurpose;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use scm_emulator::{Emulator, Step};
use scm_gateway::grpc::service::certificate_service_client::CertificateServiceClient;
use tokio::{io::AsyncReadExt as _, net::TcpStream, sync::Notify};
use tokio_rustls::TlsConnector;
use tonic::Code;

use crate::{
    harness::{
        Gateway, assert_status, emulator,
        folder::Folder,
        pki::{Authority, dns, uri},
        sample, value_of,
    },
    reload::counted,
};

const ORDERS: &str = "spiffe://example.org/ns/web/sa/orders";

/// Starts a gateway with TLS, or with mutual TLS if `clients` is its client authority.
async fn start(
    authority: &Authority,
    clients: Option<&Authority>,
    folder: &Folder,
    more: &[(&str, &str)],
) -> (Emulator, Gateway) {
    let emulator = emulator().await;
    let files = authority.variables(folder, clients.map(|clients| clients.pem.as_str()));
    let mut variables: Vec<_> = files.iter().map(|(name, value)| (*name, value.as_str())).collect();
    if clients.is_some() {
        variables.extend([
            ("SCM_GATEWAY__CALLERS__0__IDENTITY", ORDERS),
            ("SCM_GATEWAY__CALLERS__0__METHODS", "SaveInfo"),
            ("SCM_GATEWAY__CALLERS__0__PROJECTS", "*"),
        ]);
    }
    variables.extend(more);
    let gateway = Gateway::with(&emulator, &variables).await;
    (emulator, gateway)
}

#[tokio::test]
async fn only_tls_1_3_is_accepted() {
    let authority = Authority::new();
    let folder = Folder::new();
    let (emulator, gateway) = start(&authority, None, &folder, &[]).await;
    let channel = authority.connect(&gateway.addresses.server, None).await.unwrap();
    CertificateServiceClient::new(channel).save_info(sample()).await.unwrap();

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    for (version, good) in [(&rustls::version::TLS13, true), (&rustls::version::TLS12, false)] {
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let stream = TcpStream::connect(&gateway.addresses.server).await.unwrap();
        let connected = TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await;
        assert_eq!(connected.is_ok(), good, "{version:?}");
    }
    gateway.save(sample()).await.expect_err("plain text is rejected");
    assert_eq!(emulator.attempts(), 1);
}

#[tokio::test]
async fn invalid_client_certificate_gets_no_connection() {
    let authority = Authority::new();
    let folder = Folder::new();
    let (emulator, gateway) = start(&authority, Some(&authority), &folder, &[]).await;
    let names = || vec![uri(ORDERS)];
    for bad in [
        Authority::new().client(names()),
        authority.issue(names(), ExtendedKeyUsagePurpose::ClientAuth, 2021),
        authority.issue(names(), ExtendedKeyUsagePurpose::ServerAuth, 2050),
    ] {
        // In TLS 1.3 the client completes its handshake before the server verifies its certificate.
        if let Ok(channel) = authority.connect(&gateway.addresses.server, Some(&bad)).await {
            CertificateServiceClient::new(channel).save_info(sample()).await.unwrap_err();
        }
    }
    assert_eq!(emulator.attempts(), 0);
    let good = authority.connect(&gateway.addresses.server, Some(&authority.client(names()))).await.unwrap();
    CertificateServiceClient::new(good).save_info(sample()).await.unwrap();
    assert_eq!(gateway.metric::<u64>("scm_gateway_connections_refused_total{reason=\"tls\"").await, 3);
}

#[tokio::test]
async fn incomplete_tls_handshake_is_closed() {
    let authority = Authority::new();
    let folder = Folder::new();
    let variables = [("SCM_GATEWAY__SERVER__HANDSHAKE_TIMEOUT", "100ms")];
    let (_emulator, gateway) = start(&authority, None, &folder, &variables).await;
    let mut silent = TcpStream::connect(&gateway.addresses.server).await.unwrap();
    assert_eq!(silent.read(&mut [0]).await.unwrap_or_default(), 0);
}

#[tokio::test]
async fn reloaded_certificate_applies_to_new_connections() {
    let old = Authority::new();
    let folder = Folder::new();
    let (emulator, gateway) = start(&old, None, &folder, &[]).await;
    let address = &gateway.addresses.server;
    let mut old_client = CertificateServiceClient::new(old.connect(address, None).await.unwrap());
    old_client.save_info(sample()).await.unwrap();
    let gate = Arc::new(Notify::new());
    emulator.script(Step::HangThenServe(gate.clone()));
    let mut caller = old_client.clone();
    let running = tokio::spawn(async move { caller.save_info(sample()).await });
    emulator.wait_for_attempts(2).await;

    let new = Authority::new();
    new.variables(&folder, None); // writes its files
    counted(&gateway, "scm_gateway_tls_reloads", "success").await;

    let mut new_client = CertificateServiceClient::new(new.connect(address, None).await.unwrap());
    new_client.save_info(sample()).await.unwrap();
    old.connect(address, None).await.expect_err("the old certificate is replaced");
    gate.notify_one();
    running.await.unwrap().unwrap();
    old_client.save_info(sample()).await.unwrap();
    assert_eq!(emulator.attempts(), 4);
}

#[tokio::test]
async fn certificate_without_its_key_is_not_used() {
    let authority = Authority::new();
    let folder = Folder::new();
    let (_emulator, gateway) = start(&authority, None, &folder, &[]).await;
    fs::write(folder.path("tls.crt"), authority.server().certificate).unwrap();
    counted(&gateway, "scm_gateway_tls_reloads", "failure").await;
    let channel = authority.connect(&gateway.addresses.server, None).await.unwrap();
    CertificateServiceClient::new(channel).save_info(sample()).await.unwrap();
}

#[tokio::test]
async fn expired_certificate_does_not_replace_a_valid_one() {
    let authority = Authority::new();
    let folder = Folder::new();
    let (_emulator, gateway) = start(&authority, None, &folder, &[]).await;
    let failing = "scm_gateway_tls_reload_failing{side=\"listener\"";
    let shown = async || {
        let status: serde_json::Value = serde_json::from_str(&gateway.admin("/status").await.1).unwrap();
        (gateway.metric::<u64>(failing).await, status["listeners"]["tls"]["reload_failing"].as_bool().unwrap())
    };
    assert_eq!(shown().await, (0, false));
    let expired = authority.issue(vec![dns("localhost")], ExtendedKeyUsagePurpose::ServerAuth, 2021);
    fs::write(folder.path("tls.crt"), expired.certificate).unwrap();
    fs::write(folder.path("tls.key"), expired.key).unwrap();
    counted(&gateway, "scm_gateway_tls_reloads", "failure").await;
    assert_eq!(shown().await, (1, true));
    let channel = authority.connect(&gateway.addresses.server, None).await.unwrap();
    CertificateServiceClient::new(channel).save_info(sample()).await.unwrap();
    authority.variables(&folder, None); // writes a valid one
    counted(&gateway, "scm_gateway_tls_reloads", "success").await;
    assert_eq!(shown().await, (0, false));
}

/// A load balancer checks in this way whether the port is open.
#[tokio::test]
async fn port_probe_is_not_counted_as_refused() {
    let authority = Authority::new();
    let folder = Folder::new();
    let (_emulator, gateway) = start(&authority, None, &folder, &[]).await;
    for _ in 0..5 {
        drop(TcpStream::connect(&gateway.addresses.server).await.unwrap());
    }
    authority.connect(&gateway.addresses.server, None).await.unwrap();
    while gateway.metric::<u64>("scm_gateway_connections_open").await > 1 {}
    assert_eq!(gateway.metric::<u64>("scm_gateway_connections_refused_total{reason=\"tls\"").await, 0);
}

#[tokio::test]
async fn reloaded_client_ca_applies_to_new_connections() {
    let old = Authority::new();
    let new = Authority::new();
    let folder = Folder::new();
    let (emulator, gateway) = start(&old, Some(&old), &folder, &[]).await;
    let address = &gateway.addresses.server;
    fs::write(folder.path("ca.crt"), &new.pem).unwrap();
    counted(&gateway, "scm_gateway_tls_reloads", "success").await;
    let good = old.connect(address, Some(&new.client(vec![uri(ORDERS)]))).await.unwrap();
    CertificateServiceClient::new(good).save_info(sample()).await.unwrap();
    if let Ok(channel) = old.connect(address, Some(&old.client(vec![uri(ORDERS)]))).await {
        CertificateServiceClient::new(channel).save_info(sample()).await.unwrap_err();
    }
    assert_eq!(emulator.attempts(), 1);
}

#[tokio::test]
async fn time_to_expiry_is_a_metric() {
    let authority = Authority::new();
    let folder = Folder::new();
    let (_emulator, gateway) = start(&authority, Some(&authority), &folder, &[]).await;
    let (_, metrics) = gateway.admin("/metrics").await;
    let seconds = |certificate: &str| {
        let series = format!("scm_gateway_tls_certificate_time_to_expiry_seconds{{certificate=\"{certificate}\"");
        value_of::<f64>(&metrics, &series)
    };
    assert!((365.0 * 86_400.0..366.0 * 30.0 * 86_400.0).contains(&seconds("server")), "expires in 2050");
    assert!(seconds("client_ca") > seconds("server"), "expires in 4096");
}

#[tokio::test]
async fn reloaded_trust_roots_apply_to_new_connections() {
    let folder = Folder::new();
    let [old, new] = [(); 2].map(|()| scm_emulator::Tls::generate());
    let ca = folder.file("ca.pem", &old.ca_pem());
    let tls = Some(new.clone());
    let emulator = Emulator::start(scm_emulator::Options { tls, ..scm_emulator::Options::default() }).await.unwrap();
    let gateway = Gateway::with(&emulator, &[("SCM_GATEWAY__UPSTREAM__CA_FILE", &ca)]).await;
    let status = gateway.save(sample()).await.unwrap_err();
    assert_status(&status, Code::Unavailable, "UPSTREAM_TLS", Some(1));

    folder.file("ca.pem", &new.ca_pem());
    counted(&gateway, "scm_gateway_tls_reloads", "success").await;
    gateway.save(sample()).await.unwrap();
    folder.file("ca.pem", "none");
    counted(&gateway, "scm_gateway_tls_reloads", "failure").await;
    gateway.save(sample()).await.unwrap();
    assert_eq!(emulator.attempts(), 2);
}

#[tokio::test]
async fn connection_without_client_certificate_is_closed() {
    let authority = Authority::new();
    let folder = Folder::new();
    let variables = [("SCM_GATEWAY__SERVER__HANDSHAKE_TIMEOUT", "500ms")];
    let (_emulator, gateway) = start(&authority, Some(&authority), &folder, &variables).await;
    let open = async || gateway.metric::<u64>("scm_gateway_connections_open").await;
    let listed = authority.client(vec![uri(ORDERS)]);
    let listed = authority.connect(&gateway.addresses.server, Some(&listed)).await.unwrap();
    CertificateServiceClient::new(listed.clone()).save_info(sample()).await.unwrap();
    let unidentified = authority.connect(&gateway.addresses.server, None).await.unwrap();
    let status = CertificateServiceClient::new(unidentified.clone()).save_info(sample()).await.unwrap_err();
    assert_status(&status, Code::Unauthenticated, "CALLER_UNAUTHENTICATED", None);
    assert_eq!(open().await, 2);
    while open().await != 1 {}
    CertificateServiceClient::new(listed.clone()).save_info(sample()).await.unwrap();
    assert_eq!(open().await, 1, "the connection of the listed caller stays open");
}

#[tokio::test]
async fn unlisted_callers_share_an_eighth_of_connections() {
    // A caller without a certificate, and one that is not listed.
    for (certificate, code, reason) in [
        (None, Code::Unauthenticated, "CALLER_UNAUTHENTICATED"),
        (Some("spiffe://example.org/ns/web/sa/unlisted"), Code::PermissionDenied, "CALLER_NOT_ALLOWED"),
    ] {
        let authority = Authority::new();
        let folder = Folder::new();
        let variables = [("SCM_GATEWAY__SERVER__MAX_CONNECTIONS", "8")];
        let (_emulator, gateway) = start(&authority, Some(&authority), &folder, &variables).await;
        let address = &gateway.addresses.server;
        let unlisted = certificate.map(|name| authority.client(vec![uri(name)]));
        let first = authority.connect(address, unlisted.as_ref()).await.unwrap();
        let status = CertificateServiceClient::new(first.clone()).save_info(sample()).await.unwrap_err();
        assert_status(&status, code, reason, None);
        if let Ok(second) = authority.connect(address, unlisted.as_ref()).await {
            let status = CertificateServiceClient::new(second).save_info(sample()).await.unwrap_err();
            assert_ne!(status.code(), code, "unlisted callers have one connection in eight");
        }
        let listed = authority.connect(address, Some(&authority.client(vec![uri(ORDERS)]))).await.unwrap();
        CertificateServiceClient::new(listed).save_info(sample()).await.unwrap();
        let status = CertificateServiceClient::new(first).save_info(sample()).await.unwrap_err();
        assert_status(&status, code, reason, None);
    }
}
