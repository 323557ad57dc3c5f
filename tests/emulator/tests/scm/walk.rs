//! A certificate's life, from the order to its deletion, and the files that belong together.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use serde_json::{Value, json};

use crate::client::start;
use crate::life::{ID, STEP, application};
use crate::operations::{csr, fail, succeed};
use scm_emulator::{Product, Seed, Status};

/// The time of the suites' clock.
const NOW: Duration = Duration::from_secs(1_660_017_906);

/// Asserts that a certificate is valid for these names, issued by its chain, and belongs to its private key, if any.
fn assert_belongs(export: &Value, names: &[&str], after: Duration) {
    let text = |key: &str| export[key].as_str().unwrap().as_bytes();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let leaf = CertificateDer::from_pem_slice(text("certificate")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(text("certificate_chain")).unwrap()).unwrap();
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    for name in names {
        let name = ServerName::try_from(*name).unwrap();
        verifier.verify_server_cert(&leaf, &[], &name, &[], UnixTime::since_unix_epoch(NOW + after)).unwrap();
    }
    let entire =
        format!("{}{}", export["certificate"].as_str().unwrap(), export["certificate_chain"].as_str().unwrap());
    assert_eq!(export["entire_certificate"], entire);
    if export.get("private_key").is_some() {
        let key = PrivateKeyDer::from_pem_slice(text("private_key")).unwrap();
        let pair = CertifiedKey::from_der(vec![leaf], key, &provider).unwrap();
        pair.keys_match().unwrap();
    }
}

#[tokio::test]
async fn a_certificate_is_bought_applied_for_issued_and_deleted() {
    let emulator = start().await;
    let order = json!({
        "cert_brand": "GEOTRUST", "cert_type": "DV_SSL_CERT", "domain_type": "MULTI_DOMAIN", "effective_time": 1,
        "domain_numbers": 3, "order_number": 2, "primary_domain_type": "SINGLE_DOMAIN", "agree_privacy_protection": true,
        "tags": [{"key": "team", "value": "a"}],
    });
    let bought = succeed(&emulator, "SubscribeCertificate", order).await;
    let [first, second] = &bought["cert"].as_array().unwrap()[..] else { panic!("two certificates") };
    let (id, other) = (first["cert_id"].as_str().unwrap(), second["cert_id"].as_str().unwrap());
    assert!(id != other && id.len() == 16, "{bought}");
    let by_id = json!({"certificate_id": id});
    let shown = succeed(&emulator, "ShowCertificate", by_id.clone()).await;
    assert_eq!((&shown["status"], &shown["order_id"]), (&json!("PAID"), &bought["order_id"]));
    assert_eq!(
        (&shown["domain"], &shown["authentification"], &shown["fingerprint"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );

    let mut arguments = application("www.example.com");
    arguments["certificate_id"] = id.into();
    arguments["sans"] = "api.example.com".into();
    succeed(&emulator, "ApplyCertificate", arguments).await;
    let shown = succeed(&emulator, "ShowCertificate", by_id.clone()).await;
    assert_eq!(shown["status"], "CHECKING_DOMAIN");
    let proofs = shown["authentification"].as_array().unwrap();
    let published: Vec<_> = proofs.iter().map(|proof| proof["record_name"].as_str().unwrap()).collect();
    assert_eq!(published, ["_dnsauth.www.example.com", "_dnsauth.api.example.com"]);
    let verification = succeed(&emulator, "ShowDomainVerification", json!({"cert_id": id})).await;
    assert_eq!(verification["record_value"], proofs[0]["record_value"]);
    assert_eq!(verification["applicant_email"], "ann@example.com");

    emulator.advance(STEP * 2);
    let shown = succeed(&emulator, "ShowCertificate", by_id.clone()).await;
    assert_eq!((&shown["status"], &shown["authentification"]), (&json!("ISSUED"), &Value::Null));
    assert_eq!(
        (&shown["not_before"], &shown["not_after"]),
        (&json!("2022-08-09 04:05:16.0"), &json!("2023-08-09 04:05:16.0"))
    );
    assert_eq!(shown["fingerprint"].as_str().unwrap().len(), 40);
    let export = succeed(&emulator, "ExportCertificate", by_id.clone()).await;
    assert_belongs(&export, &["www.example.com", "api.example.com"], STEP * 3);
    assert_eq!(succeed(&emulator, "ExportCertificate", by_id.clone()).await, export);

    let supplement = json!({"cert_id": id, "ori_sans": "api.example.com", "add_sans": "shop.example.com"});
    succeed(&emulator, "SupplementDomains", supplement).await;
    assert_eq!(succeed(&emulator, "ExportCertificate", by_id.clone()).await, export, "the old one is still given out");
    emulator.advance(STEP);
    let new = succeed(&emulator, "ExportCertificate", by_id.clone()).await;
    assert_belongs(&new, &["shop.example.com"], STEP * 4);
    assert_ne!(new["certificate"], export["certificate"]);

    succeed(&emulator, "RevokeCertificate", json!({"cert_id": id, "reason": "no longer used"})).await;
    emulator.advance(STEP);
    let shown = succeed(&emulator, "ShowCertificate", by_id.clone()).await;
    assert_eq!((&shown["status"], &shown["revoke_reason"]), (&json!("REVOKED"), &json!("no longer used")));
    succeed(&emulator, "DeleteCertificate", by_id.clone()).await;
    fail(&emulator, "DeleteCertificate", by_id, 404, "SCM.0008").await;
    assert_eq!((emulator.status(id), emulator.status(other)), (None, Some(Status::Paid)));
}

#[tokio::test]
async fn an_application_and_a_supplement_can_be_withdrawn() {
    let emulator = start().await;
    let by_id = json!({"certificate_id": ID});
    succeed(&emulator, "ApplyCertificate", application("www.example.com")).await;
    let answer = succeed(&emulator, "CancelCertificateRequest", by_id.clone()).await;
    assert_eq!(answer, json!({"cert_id": ID, "message": "success"}));
    assert_eq!(emulator.status(ID), Some(Status::CancelChecking));
    emulator.advance(STEP);
    assert_eq!(succeed(&emulator, "ShowCertificate", by_id.clone()).await["domain"], Value::Null);
    let draft = succeed(&emulator, "ReadInfo", json!({"cert_id": ID})).await;
    assert_eq!((&draft["domain_name"], &draft["contact_name"]), (&json!("www.example.com"), &Value::Null));

    emulator.seed(&Seed::new(ID).status(Status::Issued));
    let supplement = json!({"cert_id": ID, "ori_sans": "", "add_sans": "shop.example.com"});
    succeed(&emulator, "SupplementDomains", supplement).await;
    succeed(&emulator, "CancelCertificateRequest", by_id.clone()).await;
    assert_eq!(emulator.status(ID), Some(Status::CancelSupplementing));
    emulator.advance(STEP);
    assert_eq!(succeed(&emulator, "ShowCertificate", by_id).await["sans"], "");
}

#[tokio::test]
async fn an_own_csr_keeps_its_key_and_is_not_pushed() {
    let emulator = start().await;
    let by_id = json!({"certificate_id": ID});
    let mut arguments = application("www.example.com");
    arguments["csr"] = csr().into();
    succeed(&emulator, "ApplyCertificate", arguments).await;
    emulator.advance(STEP * 2);
    let export = succeed(&emulator, "ExportCertificate", by_id.clone()).await;
    assert_eq!(export.get("private_key"), None);
    assert_belongs(&export, &["www.example.com"], STEP * 3);
    assert_eq!(succeed(&emulator, "ShowCertificate", by_id).await["push_support"], "OFF");
    for (name, arguments) in [
        ("PushCertificate", json!({"target_project": "cn-north-4", "target_service": "WAF"})),
        ("BatchPushCertificate", json!({"target_projects": ["cn-north-4"], "target_service": "WAF"})),
        ("DeployCertificate", json!({"service_name": "CDN", "resources": [{"domain_name": "a.example.com"}]})),
    ] {
        let mut arguments = arguments;
        arguments["certificate_id"] = ID.into();
        fail(&emulator, name, arguments, 400, "SCM.0030").await;
    }
}

#[tokio::test]
async fn a_key_has_the_algorithm_that_was_asked_for() {
    let emulator = start().await;
    for algorithm in ["RSA_2048", "EC_P256", "EC_P384"] {
        emulator.seed(&Seed::new(ID).product(Product::new("DV_SSL_CERT", "SINGLE_DOMAIN")));
        let mut arguments = application("www.example.com");
        arguments["key_algorithm"] = algorithm.into();
        succeed(&emulator, "ApplyCertificate", arguments).await;
        emulator.advance(STEP * 2);
        let export = succeed(&emulator, "ExportCertificate", json!({"certificate_id": ID})).await;
        assert_belongs(&export, &["www.example.com"], STEP * 7);
    }
}

#[tokio::test]
async fn an_order_that_is_new_cannot_be_returned_yet() {
    let emulator = start().await;
    let order = json!({
        "cert_brand": "GEOTRUST", "cert_type": "DV_SSL_CERT", "domain_type": "SINGLE_DOMAIN", "effective_time": 1,
        "domain_numbers": 1, "order_number": 1, "agree_privacy_protection": true,
    });
    let bought = succeed(&emulator, "SubscribeCertificate", order.clone()).await;
    let id = json!({"cert_id": bought["cert"][0]["cert_id"]});
    fail(&emulator, "UnsubscribeCertificate", id.clone(), 500, "SCM.0016").await;
    emulator.advance(STEP);
    let answer = succeed(&emulator, "UnsubscribeCertificate", id.clone()).await;
    assert_eq!(answer, json!({"unsubscribe_results": "SUCCESS"}));
    fail(&emulator, "UnsubscribeCertificate", id, 404, "SCM.0008").await;
    for (key, value) in [("domain_numbers", 2), ("domain_numbers", 0), ("effective_time", 4), ("effective_time", -1)] {
        let mut order = order.clone();
        order[key] = value.into();
        fail(&emulator, "SubscribeCertificate", order, 400, "SCM.0005").await;
    }
}

#[tokio::test]
async fn the_draft_is_deleted_with_the_privacy_authorization() {
    let emulator = start().await;
    succeed(&emulator, "ApplyCertificate", application("www.example.com")).await;
    emulator.advance(STEP * 2);
    let by_id = json!({"certificate_id": ID});
    let shown = succeed(&emulator, "ShowCertificate", by_id.clone()).await;
    assert_eq!(shown["application_info"]["applicant_name"], "Ann Example");
    succeed(&emulator, "CancelPrivacyAuthorization", json!({"cert_id": ID})).await;
    assert_eq!(succeed(&emulator, "ShowCertificate", by_id).await["application_info"], Value::Null);
    fail(&emulator, "ReadInfo", json!({"cert_id": ID}), 400, "SCM.0008").await;
}
