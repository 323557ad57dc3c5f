//! TLS of the listener.

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

/// A gateway with TLS, and with the client authority of `clients` mutual TLS.
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
async fn calls_come_in_by_tls_1_3_and_nothing_older() {
    let (authority, folder) = (Authority::new(), Folder::new());
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
    gateway.save(sample()).await.expect_err("plain text is none");
    assert_eq!(emulator.attempts(), 1);
}

#[tokio::test]
async fn a_client_certificate_of_another_authority_or_out_of_its_time_gets_no_connection() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let (emulator, gateway) = start(&authority, Some(&authority), &folder, &[]).await;
    let names = || vec![uri(ORDERS)];
    for bad in [
        Authority::new().client(names()),
        authority.issue(names(), ExtendedKeyUsagePurpose::ClientAuth, 2021),
        authority.issue(names(), ExtendedKeyUsagePurpose::ServerAuth, 2050),
    ] {
        // In TLS 1.3 the client is done before the server has looked at its certificate.
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
async fn a_handshake_that_does_not_end_in_time_is_closed() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let variables = [("SCM_GATEWAY__SERVER__HANDSHAKE_TIMEOUT", "100ms")];
    let (_emulator, gateway) = start(&authority, None, &folder, &variables).await;
    let mut silent = TcpStream::connect(&gateway.addresses.server).await.unwrap();
    assert_eq!(silent.read(&mut [0]).await.unwrap_or_default(), 0);
}

#[tokio::test]
async fn another_certificate_is_used_for_new_connections_and_the_old_ones_stay() {
    let (old, folder) = (Authority::new(), Folder::new());
    let (emulator, gateway) = start(&old, None, &folder, &[]).await;
    let address = &gateway.addresses.server;
    let mut early = CertificateServiceClient::new(old.connect(address, None).await.unwrap());
    early.save_info(sample()).await.unwrap();
    let gate = Arc::new(Notify::new());
    emulator.script(Step::HangThenServe(gate.clone()));
    let mut caller = early.clone();
    let running = tokio::spawn(async move { caller.save_info(sample()).await });
    emulator.wait_for_attempts(2).await;

    let new = Authority::new();
    new.variables(&folder, None); // writes its files
    counted(&gateway, "scm_gateway_tls_reloads", "success").await;

    let mut late = CertificateServiceClient::new(new.connect(address, None).await.unwrap());
    late.save_info(sample()).await.unwrap();
    old.connect(address, None).await.expect_err("the old certificate is gone");
    gate.notify_one();
    running.await.unwrap().unwrap();
    early.save_info(sample()).await.unwrap();
    assert_eq!(emulator.attempts(), 4);
}

#[tokio::test]
async fn a_certificate_without_its_key_is_not_used() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let (_emulator, gateway) = start(&authority, None, &folder, &[]).await;
    fs::write(folder.path("tls.crt"), authority.server().certificate).unwrap();
    counted(&gateway, "scm_gateway_tls_reloads", "failure").await;
    let channel = authority.connect(&gateway.addresses.server, None).await.unwrap();
    CertificateServiceClient::new(channel).save_info(sample()).await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_not_used_instead_of_a_good_one() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let (_emulator, gateway) = start(&authority, None, &folder, &[]).await;
    let failing = "scm_gateway_tls_reload_failing{side=\"listener\"";
    assert_eq!(gateway.metric::<u64>(failing).await, 0);
    let expired = authority.issue(vec![dns("localhost")], ExtendedKeyUsagePurpose::ServerAuth, 2021);
    fs::write(folder.path("tls.crt"), expired.certificate).unwrap();
    fs::write(folder.path("tls.key"), expired.key).unwrap();
    counted(&gateway, "scm_gateway_tls_reloads", "failure").await;
    assert_eq!(gateway.metric::<u64>(failing).await, 1);
    let channel = authority.connect(&gateway.addresses.server, None).await.unwrap();
    CertificateServiceClient::new(channel).save_info(sample()).await.unwrap();
    authority.variables(&folder, None); // writes a good one
    counted(&gateway, "scm_gateway_tls_reloads", "success").await;
    assert_eq!(gateway.metric::<u64>(failing).await, 0);
}

/// As a balancer looks whether the port is open.
#[tokio::test]
async fn who_connects_and_goes_is_no_refusal() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let (_emulator, gateway) = start(&authority, None, &folder, &[]).await;
    for _ in 0..5 {
        drop(TcpStream::connect(&gateway.addresses.server).await.unwrap());
    }
    authority.connect(&gateway.addresses.server, None).await.unwrap();
    while gateway.metric::<u64>("scm_gateway_connections_open").await > 1 {}
    assert_eq!(gateway.metric::<u64>("scm_gateway_connections_refused_total{reason=\"tls\"").await, 0);
}

#[tokio::test]
async fn another_client_authority_holds_for_new_connections() {
    let (old, new, folder) = (Authority::new(), Authority::new(), Folder::new());
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
    let (authority, folder) = (Authority::new(), Folder::new());
    let (_emulator, gateway) = start(&authority, Some(&authority), &folder, &[]).await;
    let (_, metrics) = gateway.admin("/metrics").await;
    let seconds = |certificate: &str| {
        let series = format!("scm_gateway_tls_certificate_time_to_expiry_seconds{{certificate=\"{certificate}\"");
        value_of::<f64>(&metrics, &series)
    };
    assert!((365.0 * 86_400.0..366.0 * 30.0 * 86_400.0).contains(&seconds("server")), "2050");
    assert!(seconds("client_ca") > seconds("server"), "4096");
}

#[tokio::test]
async fn other_trust_roots_hold_for_new_connections_to_scm() {
    let (folder, [old, new]) = (Folder::new(), [(); 2].map(|()| scm_emulator::Tls::generate()));
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
async fn a_connection_without_a_client_certificate_does_not_stay() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let variables = [("SCM_GATEWAY__SERVER__HANDSHAKE_TIMEOUT", "500ms")];
    let (_emulator, gateway) = start(&authority, Some(&authority), &folder, &variables).await;
    let open = async || gateway.metric::<u64>("scm_gateway_connections_open").await;
    let known = authority.client(vec![uri(ORDERS)]);
    let known = authority.connect(&gateway.addresses.server, Some(&known)).await.unwrap();
    CertificateServiceClient::new(known.clone()).save_info(sample()).await.unwrap();
    let stranger = authority.connect(&gateway.addresses.server, None).await.unwrap();
    let status = CertificateServiceClient::new(stranger.clone()).save_info(sample()).await.unwrap_err();
    assert_status(&status, Code::Unauthenticated, "CALLER_UNAUTHENTICATED", None);
    assert_eq!(open().await, 2);
    while open().await != 1 {}
    CertificateServiceClient::new(known.clone()).save_info(sample()).await.unwrap();
    assert_eq!(open().await, 1, "the one that is known has stayed");
}

#[tokio::test]
async fn strangers_leave_most_connections_to_those_who_are_known() {
    // Without a certificate, and with one that is not listed, where a single caller is.
    for (certificate, code, reason) in [
        (None, Code::Unauthenticated, "CALLER_UNAUTHENTICATED"),
        (Some("spiffe://example.org/ns/web/sa/unlisted"), Code::PermissionDenied, "CALLER_NOT_ALLOWED"),
    ] {
        let (authority, folder) = (Authority::new(), Folder::new());
        let variables = [("SCM_GATEWAY__SERVER__MAX_CONNECTIONS", "8")];
        let (_emulator, gateway) = start(&authority, Some(&authority), &folder, &variables).await;
        let address = &gateway.addresses.server;
        let stranger = certificate.map(|name| authority.client(vec![uri(name)]));
        let first = authority.connect(address, stranger.as_ref()).await.unwrap();
        let status = CertificateServiceClient::new(first.clone()).save_info(sample()).await.unwrap_err();
        assert_status(&status, code, reason, None);
        if let Ok(second) = authority.connect(address, stranger.as_ref()).await {
            let status = CertificateServiceClient::new(second).save_info(sample()).await.unwrap_err();
            assert_ne!(status.code(), code, "one in eight");
        }
        let known = authority.connect(address, Some(&authority.client(vec![uri(ORDERS)]))).await.unwrap();
        CertificateServiceClient::new(known).save_info(sample()).await.unwrap();
        let status = CertificateServiceClient::new(first).save_info(sample()).await.unwrap_err();
        assert_status(&status, code, reason, None);
    }
}
