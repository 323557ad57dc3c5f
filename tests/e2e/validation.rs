//! Validation before anything is sent: every violation at once, by proto path, without values.

use scm_gateway::proto::{CertificateInfo, SaveInfoRequest};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::harness::{Gateway, assert_status, emulator, fields, sample, sample_info};

const MARKER: &str = "p1anted";

#[tokio::test]
async fn every_violation_is_reported_without_values() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let long = |n: usize| Some(MARKER.repeat(n));
    let request = SaveInfoRequest {
        project_id: String::new(),
        cert_id: format!("{MARKER}/.."),
        info: Some(CertificateInfo {
            domain: format!("https://{MARKER}.com"),
            sans: vec!["good.example".into(), format!("{MARKER}."), "GOOD.example".into()],
            csr: format!("-----BEGIN CERTIFICATE REQUEST-----\n{MARKER}\n-----END CERTIFICATE REQUEST-----"),
            company_name: MARKER.repeat(10),
            company_unit: long(10),
            company_province: MARKER.repeat(10),
            company_city: format!("{MARKER}\0"),
            country: "ZZ".into(),
            applicant_name: " \u{3000}".into(),
            applicant_phone: String::new(),
            applicant_email: MARKER.repeat(37),
            contact_name: long(10),
            contact_phone: long(37),
            contact_email: Some(format!("{MARKER}\u{85}")),
            agree_privacy_protection: false,
        }),
    };

    let status = gateway.save(request).await.unwrap_err();

    assert_status(&status, Code::InvalidArgument, "INVALID_REQUEST", None);
    assert_eq!(
        fields(&status),
        [
            "cert_id",
            "info.domain",
            "info.sans[1]",
            "info.sans[2]",
            "info.csr",
            "info.country",
            "info.company_name",
            "info.company_unit",
            "info.company_province",
            "info.company_city",
            "info.applicant_name",
            "info.applicant_phone",
            "info.applicant_email",
            "info.contact_name",
            "info.contact_phone",
            "info.contact_email",
            "info.agree_privacy_protection",
        ]
    );
    let details = String::from_utf8_lossy(status.details());
    assert!(!details.contains(MARKER) && !status.message().contains(MARKER), "{status:?}");
    let descriptions = status.get_error_details().bad_request().unwrap().field_violations.clone();
    assert!(descriptions.iter().all(|violation| !violation.description.is_empty()));
    assert_eq!(emulator.attempts(), 0);
}

#[tokio::test]
async fn info_is_required() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let status = gateway.save(SaveInfoRequest { info: None, ..sample() }).await.unwrap_err();
    assert_status(&status, Code::InvalidArgument, "INVALID_REQUEST", None);
    assert_eq!(fields(&status), ["info"]);
    assert_eq!(emulator.attempts(), 0);
}

/// Returns the fields that a change makes invalid.
async fn violations(change: impl Fn(&mut SaveInfoRequest, &mut CertificateInfo)) -> Vec<String> {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let mut request = sample();
    let mut info = sample_info();
    change(&mut request, &mut info);
    request.info = Some(info);
    match gateway.save(request).await {
        Ok(_) => Vec::new(),
        Err(status) => {
            assert_status(&status, Code::InvalidArgument, "INVALID_REQUEST", None);
            assert_eq!(emulator.attempts(), 0);
            fields(&status)
        }
    }
}

#[tokio::test]
async fn limits_of_every_rule() {
    let none: [&str; 0] = [];
    assert_eq!(violations(|_, i| i.company_name = "界".repeat(63)).await, none);
    assert_eq!(violations(|_, i| i.company_name = "界".repeat(64)).await, ["info.company_name"]);
    assert_eq!(violations(|_, i| i.company_city = String::new()).await, none);
    assert_eq!(violations(|_, i| i.applicant_name = "x".repeat(63)).await, none);
    assert_eq!(violations(|_, i| i.applicant_name = "x".repeat(64)).await, ["info.applicant_name"]);
    assert_eq!(violations(|_, i| i.applicant_email = "example.huawei.com".into()).await, none);
    assert_eq!(violations(|_, i| i.applicant_phone = "1".repeat(256)).await, ["info.applicant_phone"]);
    assert_eq!(violations(|_, i| i.contact_email = Some("x".repeat(255))).await, none);
    assert_eq!(violations(|_, i| i.country = "uk".into()).await, ["info.country"]);
    assert_eq!(violations(|_, i| i.country = "gb".into()).await, none);
    assert_eq!(violations(|_, i| i.sans = vec!["WWW.xzz.com".into()]).await, ["info.sans[0]"]);
    assert_eq!(violations(|_, i| i.domain = "127.0.0.1".into()).await, ["info.domain"]);
    assert_eq!(violations(|_, i| i.domain = "localhost".into()).await, ["info.domain"]);
    assert_eq!(violations(|r, _| r.cert_id = String::new()).await, ["cert_id"]);
    assert_eq!(violations(|r, _| r.cert_id = "x".repeat(65)).await, ["cert_id"]);
    assert_eq!(violations(|_, i| i.csr = "-".repeat(5121)).await, ["info.csr"]);
}

#[tokio::test]
async fn csr_for_another_domain_is_rejected() {
    let key = rcgen::KeyPair::generate().unwrap();
    let request =
        rcgen::CertificateParams::new(vec!["other.example".to_owned()]).unwrap().serialize_request(&key).unwrap();
    let pem = request.pem().unwrap();
    assert_eq!(violations(|_, i| i.csr.clone_from(&pem)).await, ["info.csr"]);
}
