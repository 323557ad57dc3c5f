//! Which state allows which operation, and how time moves the states.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::start;
use crate::operations::{csr, fail, invoke, succeed};
use scm_emulator::Status::{
    CancelChecking, CancelRevoking, CancelSupplementing, Checking, CheckingDomain, CheckingOrg, Expired, Issued,
    Issuing, Paid, Revoked, Revoking, SupplementChecking, Unpassed, Upload,
};
use scm_emulator::{Emulator, Options, Product, Seed, Status};

pub(crate) const ID: &str = "scs1554192131150";
/// The default of [`Options::review_step`].
pub(crate) const STEP: Duration = Duration::from_secs(5);

pub(crate) fn application(domain: &str) -> Value {
    json!({
        "certificate_id": ID, "domain": domain, "applicant_name": "Ann Example", "applicant_phone": "13000000001",
        "applicant_email": "ann@example.com", "agree_privacy_protection": true, "domain_method": "DNS",
    })
}

/// Operation, arguments, and the states that allow it.
fn table() -> Vec<(&'static str, Value, Vec<Status>)> {
    let by_id = |key: &str| json!({key: ID});
    let all = || Status::ALL.to_vec();
    let all_but = |states: &[Status]| all().into_iter().filter(|status| !states.contains(status)).collect();
    let save = json!({
        "cert_id": ID, "domain": "www.example.com", "company_name": "", "company_province": "", "company_city": "",
        "country": "CN", "applicant_name": "Ann", "applicant_phone": "1", "applicant_email": "a@b.c",
        "agree_privacy_protection": true,
    });
    let push = json!({"certificate_id": ID, "target_project": "cn-north-4", "target_service": "WAF"});
    let batch = json!({"certificate_id": ID, "target_projects": ["cn-north-4"], "target_service": "ELB"});
    let deploy = json!({"certificate_id": ID, "service_name": "CDN", "resources": [{"domain_name": "a.example.com"}]});
    let modify = json!({"cert_id": ID, "modify_key": "DESCRIPTION", "modify_value": ""});
    let notices = json!({"items": [{"resource_id": ID, "notice_type": ["CERT_EXPIRED"]}]});
    let tags = json!({"resource_id": ID, "action": "create", "tags": [{"key": "a", "value": "b"}]});
    let supplement = json!({"cert_id": ID, "ori_sans": "", "add_sans": "new.example.com"});
    let deployed = json!({"certificate_ids": [ID], "service_names": ["ALL"]});
    vec![
        ("SaveInfo", save, vec![Paid]),
        ("ApplyCertificate", application("www.example.com"), vec![Paid]),
        ("CancelCertificateRequest", by_id("certificate_id"), vec![CheckingDomain, CheckingOrg, SupplementChecking]),
        ("ShowDomainVerification", by_id("cert_id"), all()),
        ("SupplementDomains", supplement, vec![Issued]),
        ("ExportCertificate", by_id("certificate_id"), vec![Issued, SupplementChecking, Upload]),
        ("PushCertificate", push, vec![Issued, Upload]),
        ("BatchPushCertificate", batch, vec![Issued, Upload]),
        ("DeployCertificate", deploy, vec![Issued, Upload]),
        ("RevokeCertificate", json!({"cert_id": ID, "reason": "lost"}), vec![Issued]),
        ("DeleteCertificate", by_id("certificate_id"), vec![Issued, Revoked, Expired, Upload]),
        ("UnsubscribeCertificate", by_id("cert_id"), vec![Paid, Revoked]),
        (
            "CancelPrivacyAuthorization",
            by_id("cert_id"),
            all_but(&[CheckingDomain, CheckingOrg, Issuing, SupplementChecking]),
        ),
        ("ShowCertificate", by_id("certificate_id"), all()),
        ("ModifyCertificate", modify, all()),
        ("ListPushHistory", by_id("cert_id"), all()),
        ("ListDeployedResources", deployed, all()),
        ("CreateCertificateTag", json!({"resource_id": ID, "tag": {"key": "a"}}), all()),
        ("BatchCreateOrDeleteTags", tags, all()),
        ("ListTagsByCertificate", by_id("resource_id"), all()),
        ("EnableNotification", notices.clone(), all()),
        ("DisableNotification", notices, all()),
    ]
}

#[tokio::test]
async fn a_state_allows_exactly_its_operations() {
    let emulator = start().await;
    for (name, arguments, allowed) in table() {
        for status in Status::ALL {
            emulator.seed(&Seed::new(ID).status(*status));
            let answer = invoke(&emulator, name, arguments.clone()).await;
            if allowed.contains(status) {
                assert!(answer.status < 300, "{name} in {status}: {}", answer.status);
            } else {
                assert_eq!(answer.status, 400, "{name} in {status}");
                assert_eq!(answer.json()["error_code"], "SCM.0010", "{name} in {status}");
                assert_eq!(emulator.status(ID), Some(*status), "{name} in {status}");
            }
        }
    }
}

#[tokio::test]
async fn a_domain_has_a_proof_only_while_the_ca_waits_for_it() {
    let emulator = start().await;
    for status in Status::ALL {
        emulator.seed(&Seed::new(ID).status(*status));
        let answer = succeed(&emulator, "ShowDomainVerification", json!({"cert_id": ID})).await;
        let answer = answer.as_object().unwrap();
        let known = answer.values().filter(|value| !value.is_null()).count();
        // This proof is a DNS record, and nobody has applied: there is no address.
        assert_eq!((answer.len(), known), (8, if *status == CheckingDomain { 6 } else { 0 }), "{status}");
    }
}

#[tokio::test]
async fn ids_of_others_and_of_nobody_are_rejected() {
    let other = Seed { owner: "another".to_owned(), ..Seed::new("scs1000000000001") };
    let options = Options {
        unknown: vec!["scs1000000000404".to_owned()],
        foreign: vec!["scs1000000000403".to_owned()],
        certificates: vec![other],
        ..Options::default()
    };
    let emulator =
        Emulator::start(Options { now: crate::client::ManualClock::default().options().now, ..options }).await;
    let emulator = emulator.unwrap();
    for (name, arguments, _) in table() {
        for (id, code) in [
            ("scs1000000000404", "SCM.0008"),
            ("scs1000000000403", "SCM.0003"),
            ("scs1000000000001", "SCM.0003"),
            ("abc1000000000001", "SCM.0008"),
        ] {
            let arguments = serde_json::from_str(&arguments.to_string().replace(ID, id)).unwrap();
            fail(&emulator, name, arguments, 400, code).await;
        }
    }
}

#[tokio::test]
async fn time_moves_the_states() {
    let emulator = start().await;
    let organization = Product::new("OV_SSL_CERT", "MULTI_DOMAIN");
    let refused = |status| Seed { domain: "www.example.invalid".to_owned(), ..Seed::new(ID).status(status) };
    for (seed, following) in [
        (Seed::new(ID).status(CheckingDomain), &[Issuing, Issued, Issued][..]),
        (Seed::new(ID).status(CheckingDomain).product(organization), &[CheckingOrg, Issuing, Issued]),
        (refused(CheckingDomain), &[Unpassed, Unpassed]),
        (Seed::new(ID).status(CancelChecking), &[Paid, Paid]),
        (Seed::new(ID).status(SupplementChecking), &[Issued, Issued]),
        (Seed::new(ID).status(CancelSupplementing), &[Issued, Issued]),
        (Seed::new(ID).status(Revoking), &[Revoked, Revoked]),
        (Seed::new(ID).status(CancelRevoking), &[Issued, Issued]),
        (Seed::new(ID).status(Checking), &[Checking, Checking]),
        (Seed::new(ID), &[Paid, Paid]),
    ] {
        emulator.seed(&seed);
        emulator.advance(STEP - Duration::from_secs(1));
        assert_eq!(emulator.status(ID), Some(seed.status), "{}", seed.status);
        emulator.advance(Duration::from_secs(1));
        for expected in following {
            assert_eq!(emulator.status(ID), Some(*expected), "{}", seed.status);
            emulator.advance(STEP);
        }
    }
    for status in [Issued, Upload, CheckingDomain] {
        emulator.seed(&Seed::new(ID).status(status));
        emulator.advance(Duration::from_secs(366 * 24 * 60 * 60));
        assert_eq!(emulator.status(ID), Some(Expired), "{status}");
    }
}

#[tokio::test]
async fn the_rules_beside_the_state_hold() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let emulator = start().await;
    let id = json!({"certificate_id": ID});
    let free = Product { years: 0, ..Product::new("DV_SSL_CERT", "SINGLE_DOMAIN") };
    emulator.seed(&Seed::new(ID).product(free));
    succeed(&emulator, "DeleteCertificate", id.clone()).await;
    fail(&emulator, "ShowCertificate", id.clone(), 404, "SCM.0008").await;

    let revoke = json!({"cert_id": ID, "reason": ""});
    emulator.seed(&Seed::new(ID).status(Issued));
    emulator.advance(DAY * 336);
    fail(&emulator, "RevokeCertificate", revoke.clone(), 400, "SCM.0010").await;
    emulator.seed(&Seed::new(ID).status(Upload));
    fail(&emulator, "RevokeCertificate", revoke, 400, "SCM.0010").await;

    let returned = json!({"cert_id": ID});
    emulator.seed(&Seed::new(ID));
    emulator.advance(DAY * 7);
    fail(&emulator, "UnsubscribeCertificate", returned.clone(), 400, "SCM.0010").await;
    let years = Product { years: 2, ..Product::new("OV_SSL_CERT", "SINGLE_DOMAIN") };
    emulator.seed(&Seed::new(ID).status(Revoked).product(years));
    fail(&emulator, "UnsubscribeCertificate", returned, 400, "SCM.0010").await;

    let add = |names: &str| json!({"cert_id": ID, "ori_sans": "", "add_sans": names});
    emulator.seed(&Seed::new(ID).status(Issued).product(Product::new("DV_SSL_CERT", "SINGLE_DOMAIN")));
    fail(&emulator, "SupplementDomains", add("a.example.com"), 400, "SCM.0010").await;
    let ten: Vec<_> = (0..10).map(|number| format!("{number}.example.com")).collect();
    emulator.seed(&Seed::new(ID).status(Issued));
    for names in [&ten.join(";"), "", "www.example.com", "a.example.com;a.example.com", "a b.example.com"] {
        fail(&emulator, "SupplementDomains", add(names), 400, "SCM.0015").await;
    }
    succeed(&emulator, "SupplementDomains", add(&ten[1..].join(";"))).await;
}

#[tokio::test]
async fn an_application_has_to_suit_its_product() {
    let emulator = start().await;
    let dv = |domain_type| Product::new("DV_SSL_CERT", domain_type);
    let ov = Product::new("OV_SSL_CERT", "SINGLE_DOMAIN");
    let ev = Product { brand: "CFCA".to_owned(), ..Product::new("EV_SSL_CERT", "SINGLE_DOMAIN") };
    let company = json!({"company_name": "a", "company_province": "b", "company_city": "c", "country": "CN"});
    let with = |mut arguments: Value, more: Value| {
        more.as_object().unwrap().iter().for_each(|(key, value)| arguments[key] = value.clone());
        arguments
    };
    for (product, domain, more, code) in [
        (dv("SINGLE_DOMAIN"), "www.example.com", json!({}), ""),
        (dv("SINGLE_DOMAIN"), "*.example.com", json!({}), "SCM.0015"),
        (dv("SINGLE_DOMAIN"), "www.example.com", json!({"sans": "a.example.com"}), "SCM.0015"),
        (dv("WILDCARD"), "*.example.com", json!({}), ""),
        (dv("WILDCARD"), "www.example.com", json!({}), "SCM.0015"),
        (dv("MULTI_DOMAIN"), "*.example.com", json!({"sans": "a.example.com;b.example.com"}), ""),
        (dv("MULTI_DOMAIN"), "nodots", json!({}), "SCM.0015"),
        (dv("MULTI_DOMAIN"), "华为.example.com", json!({}), "SCM.0015"),
        (dv("SINGLE_DOMAIN"), "192.0.2.1", json!({"domain_method": "FILE"}), ""),
        (dv("SINGLE_DOMAIN"), "192.0.2.1", json!({}), "SCM.0005"),
        (dv("MULTI_DOMAIN"), "192.0.2.1", json!({"domain_method": "FILE", "sans": "a.example.com"}), "SCM.0015"),
        (dv("SINGLE_DOMAIN"), "www.example.com", json!({"domain_method": "FILE"}), "SCM.0005"),
        (dv("SINGLE_DOMAIN"), "www.example.com", json!({"domain_method": "EMAIL"}), "SCM.0005"),
        (dv("SINGLE_DOMAIN"), "www.example.com", json!({"key_algorithm": "SM2"}), "SCM.0005"),
        (dv("SINGLE_DOMAIN"), "www.example.com", json!({"csr": "x"}), "SCM.0005"),
        (dv("SINGLE_DOMAIN"), "other.example.com", json!({"csr": csr()}), "SCM.0005"),
        (ov.clone(), "www.example.com", json!({}), "SCM.0005"),
        (ov.clone(), "www.example.com", company.clone(), "SCM.0005"),
        (ov, "www.example.com", with(company.clone(), json!({"ca_hash_algorithm": "DEFAULT"})), ""),
        (ev, "www.example.com", with(company, json!({"domain_method": "EMAIL"})), ""),
    ] {
        emulator.seed(&Seed::new(ID).product(product));
        let arguments = with(application(domain), more);
        match code {
            "" => {
                assert_eq!(succeed(&emulator, "ApplyCertificate", arguments).await, json!({"request_info": "success"}))
            }
            code => fail(&emulator, "ApplyCertificate", arguments, 400, code).await,
        }
    }
}
