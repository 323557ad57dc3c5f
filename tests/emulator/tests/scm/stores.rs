//! Lists, imports, deployments, tags, CSRs and reminders.

use serde_json::{Value, json};

use crate::client::{CERTIFICATE, start};
use crate::life::{ID, STEP};
use crate::operations::{CSR_ID, csr, fail, invoke, succeed};
use scm_emulator::{Emulator, Product, Seed, Status};

/// Returns what a list has under a key of each row.
fn column(answer: &Value, list: &str, key: &str) -> Vec<String> {
    let rows = answer[list].as_array().unwrap().iter();
    rows.map(|row| row[key].as_str().unwrap().to_owned()).collect()
}

/// Returns a certificate with its key, and the certificate of its CA, as PEM.
fn own(domain: &str, year: i32) -> (String, String, String) {
    let mut authority = rcgen::CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority.distinguished_name.push(rcgen::DnType::CommonName, "Test CA");
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let ca = authority.self_signed(&ca_key).unwrap().pem();
    let mut leaf =
        rcgen::CertificateParams::new(if domain.is_empty() { vec![] } else { vec![domain.to_owned()] }).unwrap();
    leaf.distinguished_name = rcgen::DistinguishedName::new();
    leaf.not_before = rcgen::date_time_ymd(2020, 1, 1);
    leaf.not_after = rcgen::date_time_ymd(year, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let issuer = rcgen::Issuer::new(authority, ca_key);
    (leaf.signed_by(&key, &issuer).unwrap().pem(), ca, key.serialize_pem())
}

async fn five(emulator: &Emulator) {
    for (id, status) in [
        ("scs1000000000001", Status::Issued),
        ("scs1000000000002", Status::CheckingDomain),
        ("scs1000000000003", Status::Upload),
        ("scs1000000000004", Status::Paid),
        ("scs1000000000005", Status::Expired),
    ] {
        emulator.seed(&Seed::new(id).status(status));
    }
}

#[tokio::test]
async fn certificates_are_filtered_sorted_and_paged() {
    let emulator = start().await;
    five(&emulator).await;
    emulator.seed(&Seed { owner: "another".to_owned(), ..Seed::new("scs1000000000009") });
    let rename = json!({"cert_id": "scs1000000000004", "modify_key": "CERT_NAME", "modify_value": "shop"});
    succeed(&emulator, "ModifyCertificate", rename).await;
    for (arguments, expected) in [
        (json!({"sort_key": "certStatus", "sort_dir": "ASC"}), "25143"),
        (json!({"status": "ISSUED"}), "1"),
        (json!({"status": "CHECKING"}), "2"),
        (json!({"status": "REVOKED"}), ""),
        (json!({"content": "sho"}), "4"),
        (json!({"content": "example", "sort_key": "certStatus"}), "3152"),
        (json!({"deploy_support": true, "sort_key": "certStatus"}), "31"),
        (json!({"enterprise_project_id": "0", "limit": 10, "offset": 4, "sort_key": "certStatus"}), "2"),
        (json!({"enterprise_project_id": "other"}), ""),
        (json!({"expired_days_since": 0, "sort_key": "certStatus"}), "3412"),
        (json!({"expired_days_since": 1, "sort_key": "certStatus"}), "34152"),
        (json!({"sort_key": "certExpiredTime", "sort_dir": "ASC", "limit": 10, "offset": 2}), "531"),
    ] {
        let answer = succeed(&emulator, "ListCertificates", arguments.clone()).await;
        let ids: String = column(&answer, "certificates", "id").iter().map(|id| &id[15..]).collect();
        assert_eq!(ids, expected, "{arguments}");
    }
    let all = succeed(&emulator, "ListCertificates", json!({"offset": 4})).await;
    assert_eq!((&all["total_count"], all["certificates"].as_array().unwrap().len()), (&json!(5), 1));
    fail(&emulator, "ShowCertificate", json!({"certificate_id": "scs1000000000009"}), 400, "SCM.0003").await;
}

#[tokio::test]
async fn names_are_checked() {
    let emulator = start().await;
    let rename = |value: &str| json!({"cert_id": ID, "modify_key": "CERT_NAME", "modify_value": value});
    for name in ["", "a b", &"x".repeat(64)] {
        fail(&emulator, "ModifyCertificate", rename(name), 400, "SCM.0024").await;
    }
    let answer = succeed(&emulator, "ModifyCertificate", rename("a-1")).await;
    assert_eq!(answer, json!({"response_info": "success"}));
}

#[tokio::test]
async fn an_imported_certificate_is_exported_as_it_was() {
    let emulator = start().await;
    let (certificate, chain, key) = own("shop.example.com", 2030);
    let import = |more: Value| {
        let mut arguments = json!({"name": "shop", "certificate": certificate, "private_key": key});
        more.as_object().unwrap().iter().for_each(|(key, value)| arguments[key] = value.clone());
        arguments
    };
    let with_chain = import(json!({"certificate_chain": format!("\r\n{chain}\n"), "duplicate_check": true}));
    let id = succeed(&emulator, "ImportCertificate", with_chain.clone()).await;
    let shown = succeed(&emulator, "ShowCertificate", id.clone()).await;
    assert_eq!((&shown["status"], &shown["domain"]), (&json!("UPLOAD"), &json!("shop.example.com")));
    assert_eq!((&shown["order_id"], &shown["not_after"]), (&json!(""), &json!("2030-01-01 00:00:00.0")));
    let export = succeed(&emulator, "ExportCertificate", id.clone()).await;
    for (name, text) in [("certificate", &certificate), ("certificate_chain", &chain), ("private_key", &key)] {
        assert_eq!(export[name].as_str().unwrap(), text.replace("\r\n", "\n"), "{name}");
    }
    fail(&emulator, "ImportCertificate", with_chain, 400, "SCM.0006").await;
    let bundle = import(json!({"certificate": format!("{certificate}{chain}")}));
    let again = succeed(&emulator, "ImportCertificate", bundle).await;
    assert_ne!(again, id);
    assert_eq!(succeed(&emulator, "ExportCertificate", again).await["certificate_chain"], export["certificate_chain"]);
    let both = import(json!({"certificate": format!("{certificate}{certificate}"), "certificate_chain": chain}));
    let both = succeed(&emulator, "ImportCertificate", both).await;
    assert_eq!(succeed(&emulator, "ExportCertificate", both).await["certificate_chain"], export["certificate_chain"]);

    let (expired, ..) = own("a.example.com", 2021);
    let (nameless, ..) = own("", 2030);
    let (_, other_chain, other_key) = own("a.example.com", 2030);
    let encrypted = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../keys/encrypted.pem")).unwrap();
    fail(&emulator, "ImportCertificate", import(json!({})), 400, "SCM.0006").await;
    let import = |more: Value| {
        let mut arguments = import(json!({"certificate_chain": chain}));
        more.as_object().unwrap().iter().for_each(|(key, value)| arguments[key] = value.clone());
        arguments
    };
    for (more, code) in [
        (json!({"name": "a b"}), "SCM.0032"),
        (json!({"name": "华为云"}), "SCM.0032"),
        (json!({"certificate": ""}), "SCM.0054"),
        (json!({"certificate": "MIIB"}), "SCM.0053"),
        (json!({"certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"}), "SCM.0006"),
        (json!({"certificate": expired}), "SCM.0006"),
        (json!({"certificate": nameless}), "SCM.0009"),
        (json!({"certificate_chain": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"}), "SCM.0013"),
        (json!({"certificate_chain": certificate}), "SCM.0079"),
        (json!({"private_key": ""}), "SCM.0059"),
        (json!({"private_key": "MIIB"}), "SCM.0114"),
        (json!({"private_key": certificate}), "SCM.0012"),
        (json!({"private_key": encrypted}), "SCM.0012"),
        (json!({"private_key": other_key}), "SCM.0014"),
    ] {
        fail(&emulator, "ImportCertificate", import(more), 400, code).await;
    }
    let answer = invoke(&emulator, "ImportCertificate", import(json!({"certificate_chain": other_chain}))).await;
    assert_eq!(answer.status, 200, "the names are equal, and signatures are not verified");
}

#[tokio::test]
async fn pushes_are_remembered_and_a_batch_fails_in_part() {
    let options = crate::client::ManualClock::default().options();
    let unknown = vec!["nowhere".to_owned()];
    let emulator = Emulator::start(scm_emulator::Options { unknown, ..options }).await.unwrap();
    emulator.seed(&Seed::new(ID).status(Status::Issued));
    let push = |project: &str, service: &str| json!({"certificate_id": ID, "target_project": project, "target_service": service});
    succeed(&emulator, "PushCertificate", push("", "CDN")).await;
    fail(&emulator, "PushCertificate", push("", "CDN"), 400, "SCM.0211").await;
    fail(&emulator, "PushCertificate", push("", "WAF"), 400, "SCM.0069").await;
    fail(&emulator, "PushCertificate", push("nowhere", "WAF"), 400, "SCM.0069").await;
    emulator.advance(STEP);
    succeed(&emulator, "PushCertificate", push("cn-north-4", "WAF")).await;
    let history = succeed(&emulator, "ListPushHistory", json!({"cert_id": ID})).await;
    let expected = json!({"push_history_list": [
        {"push_time": "1660017911000", "push_remote_project": "cn-north-4", "push_service": "WAF"},
        {"push_time": "1660017906000", "push_remote_project": null, "push_service": "CDN"},
    ]});
    assert_eq!(history, expected);
    let batch = json!({"certificate_id": ID, "target_projects": ["cn-north-4", "nowhere"], "target_service": "ELB"});
    let answer = succeed(&emulator, "BatchPushCertificate", batch).await;
    let [pushed, failed] = &answer["results"].as_array().unwrap()[..] else { panic!("{answer}") };
    assert_eq!((pushed["cert_id"].as_str().unwrap().len(), &pushed["message"]), (32, &json!("success")));
    assert_eq!((&failed["cert_id"], &failed["project_name"]), (&json!(""), &json!("nowhere")));
    for _ in 0..10 {
        succeed(&emulator, "PushCertificate", push("cn-north-4", "WAF")).await;
    }
    let history = succeed(&emulator, "ListPushHistory", json!({"cert_id": ID})).await;
    assert_eq!(column(&history, "push_history_list", "push_service"), ["WAF"; 10]);
}

#[tokio::test]
async fn deployments_are_listed_by_service_and_region() {
    let options = crate::client::ManualClock::default().options();
    let unknown = vec!["nowhere".to_owned()];
    let emulator = Emulator::start(scm_emulator::Options { unknown, ..options }).await.unwrap();
    emulator.seed(&Seed::new(ID).status(Status::Upload));
    let deploy = |service: &str, project: &str, resources: Value| {
        json!({
            "certificate_id": ID, "service_name": service, "project_name": project, "resources": resources,
        })
    };
    let named = json!([{"id": "w-1", "domain_name": "www.example.com", "type": "cloud"}, {"id": "nowhere"}]);
    let answer = succeed(&emulator, "DeployCertificate", deploy("WAF", "cn-north-4", named.clone())).await;
    let failure = json!([{"resource": "nowhere", "failure_info": "WAF.0404:The resource was not found"}]);
    assert_eq!(answer["failure_list"], failure);
    succeed(&emulator, "DeployCertificate", deploy("WAF", "cn-north-4", named)).await;
    let cdn =
        json!({"certificate_id": ID, "service_name": "CDN", "resources": [{"domain_name": "static.example.com"}]});
    assert_eq!(succeed(&emulator, "DeployCertificate", cdn).await, json!({"failure_list": []}));
    fail(&emulator, "DeployCertificate", deploy("CDN", "x", json!([{"id": "a"}])), 400, "SCM.0005").await;
    fail(&emulator, "DeployCertificate", deploy("ELB", "x", json!([{"domain_name": "a"}])), 400, "SCM.0005").await;
    let list = |services: &[&str]| json!({"certificate_ids": [ID, CERTIFICATE], "service_names": services});
    let answer = succeed(&emulator, "ListDeployedResources", list(&["ALL"])).await;
    let resource = |id: &str, name: &str| json!([{"resource_id": id, "resource_name": name}]);
    let expected = json!({"results": [
        {"certificate_id": ID, "total_num": 2, "deployed_resources": [
            {"service": "CDN", "resource_num": 1, "resource_location": "global", "region_resources": [
                {"region_id": "global", "is_error": false, "resources": resource("static.example.com", "static.example.com")},
            ]},
            {"service": "WAF", "resource_num": 1, "resource_location": "region", "region_resources": [
                {"region_id": "cn-north-4", "is_error": false, "resources": resource("w-1", "www.example.com")},
            ]},
        ]},
        {"certificate_id": CERTIFICATE, "total_num": 0, "deployed_resources": []},
    ]});
    assert_eq!(answer, expected);
    let answer = succeed(&emulator, "ListDeployedResources", list(&["WAF", "ELB"])).await;
    assert_eq!(answer["results"][0]["total_num"], 1);
}

#[tokio::test]
async fn tags_are_set_removed_and_searched() {
    let emulator = start().await;
    five(&emulator).await;
    for (digit, key, value) in [("1", "team", "shop"), ("2", "team", "pay"), ("3", "old", ""), ("1", "old", "yes")] {
        let tag = json!({"resource_id": format!("scs100000000000{digit}"), "tag": {"key": key, "value": value}});
        assert_eq!(succeed(&emulator, "CreateCertificateTag", tag).await, json!({"desc": "success"}));
    }
    let all = succeed(&emulator, "ListAllTags", json!({})).await;
    let expected = json!({"tags": [{"key": "old", "values": ["", "yes"]}, {"key": "team", "values": ["pay", "shop"]}]});
    assert_eq!(all, expected);
    let tag = |key: &str, values: &[&str]| json!([{"key": key, "values": values}]);
    for (filter, expected) in [
        (json!({}), "12345"),
        (json!({"tags": tag("team", &[])}), "12"),
        (json!({"tags": tag("team", &["shop"])}), "1"),
        (json!({"tags": [{"key": "team", "values": []}, {"key": "old", "values": []}]}), "1"),
        (json!({"tags_any": [{"key": "team", "values": ["pay"]}, {"key": "old", "values": []}]}), "123"),
        (json!({"not_tags": tag("team", &["shop"])}), "2345"),
        (json!({"not_tags_any": [{"key": "team", "values": []}, {"key": "old", "values": ["yes"]}]}), "345"),
        (json!({"without_any_tag": true, "tags": tag("team", &[])}), "45"),
        (json!({"matches": [{"key": "resource_name", "value": "0003"}]}), "3"),
        (json!({"limit": 10, "offset": 3}), "45"),
    ] {
        let mut arguments = filter.clone();
        arguments["resource_instances"] = "resource_instances".into();
        let answer = succeed(&emulator, "ListCertificatesByTag", arguments.clone()).await;
        let ids: String = column(&answer, "resources", "resource_id").iter().map(|id| &id[15..]).collect();
        assert_eq!(ids, expected, "{filter}");
        arguments["action"] = "count".into();
        if filter.get("offset").is_none() {
            let count = succeed(&emulator, "ListCertificatesByTag", arguments).await;
            assert_eq!(count, json!({"total_count": expected.len()}));
        }
    }
    for key in ["limit", "offset"] {
        let paged = json!({"resource_instances": "resource_instances", "action": "count", key: 10});
        fail(&emulator, "ListCertificatesByTag", paged, 400, "SCM.0005").await;
    }
    let incomplete = json!({"resource_instances": "resource_instances", "tags": [{"key": "team"}]});
    fail(&emulator, "ListCertificatesByTag", incomplete, 400, "SCM.0005").await;
    let remove = json!({"resource_id": "scs1000000000001", "action": "delete", "tags": [{"key": "team"}]});
    succeed(&emulator, "BatchCreateOrDeleteTags", remove).await;
    let left = succeed(&emulator, "ListTagsByCertificate", json!({"resource_id": "scs1000000000001"})).await;
    assert_eq!(left, json!({"tags": [{"key": "old", "value": "yes"}]}));
}

#[tokio::test]
async fn csrs_are_made_listed_renamed_and_deleted() {
    let emulator = start().await;
    let create = |usage: &str, company: &str| {
        json!({
            "name": "shop", "domain_name": "shop.example.com", "sans": "a.example.com,b.example.com",
            "private_key_algo": "EC_P256", "usage": usage, "company_country": company, "company_province": company,
            "company_city": company, "company_name": company,
        })
    };
    fail(&emulator, "CreateCsr", create("ENTERPRISE", ""), 400, "SCM.0005").await;
    let mut sm2 = create("PERSONAL", "");
    sm2["private_key_algo"] = "SM2".into();
    fail(&emulator, "CreateCsr", sm2, 400, "SCM.0005").await;
    let made = succeed(&emulator, "CreateCsr", create("ENTERPRISE", "CN")).await;
    assert_eq!(
        (&made["sans"], &made["create_time"]),
        (&json!("a.example.com,b.example.com"), &json!(1_660_017_906_000_u64))
    );
    assert_eq!(made.get("csr"), None);
    let id = json!({"id": made["id"]});
    let shown = succeed(&emulator, "ShowCsr", id.clone()).await;
    let check = succeed(&emulator, "CheckCsr", json!({"csr": shown["csr"]})).await;
    assert_eq!(check, json!({"domain": "shop.example.com"}));
    let key = succeed(&emulator, "ShowCsrPrivateKey", id.clone()).await;
    let pair = rcgen::KeyPair::from_pem(key["private_key"].as_str().unwrap()).unwrap();
    assert!(pair.is_compatible(&rcgen::PKCS_ECDSA_P256_SHA256));
    let both = json!({"name": "up", "csr": shown["csr"], "private_key": key["private_key"]});
    let uploaded = succeed(&emulator, "UploadCsr", both.clone()).await;
    let mut other = both;
    other["csr"] = csr().into();
    fail(&emulator, "UploadCsr", other.clone(), 400, "SCM.0014").await;
    other.as_object_mut().unwrap().remove("private_key");
    let without_key = succeed(&emulator, "UploadCsr", other).await;
    let without_key = json!({"id": without_key["id"]});
    assert_eq!(succeed(&emulator, "ShowCsrPrivateKey", without_key).await, json!({"private_key": null}));
    emulator.seed_csr(CSR_ID, "seed.example.com");
    for (filter, expected) in [
        (json!({}), &["csr-seed.example.com", "shop", "up", "up"][..]),
        (json!({"private_key_algo": "EC_P256"}), &["shop", "up"]),
        (json!({"name": "sho"}), &["shop"]),
        (json!({"limit": 10, "offset": 3}), &["csr-seed.example.com"]),
    ] {
        let list = succeed(&emulator, "ListCsr", filter.clone()).await;
        let mut names = column(&list, "csr_list", "name");
        names.sort();
        assert_eq!(names, expected, "{filter}");
    }
    emulator.advance(STEP);
    let rename = json!({"id": uploaded["id"], "name": "改名"});
    let renamed = succeed(&emulator, "UpdateCsr", rename).await;
    assert_eq!((&renamed["name"], &renamed["update_time"]), (&json!("改名"), &json!(1_660_017_911_000_u64)));
    succeed(&emulator, "DeleteCsr", id.clone()).await;
    for name in ["ShowCsr", "ShowCsrPrivateKey", "DeleteCsr"] {
        fail(&emulator, name, id.clone(), 400, "SCM.0707").await;
    }
    fail(&emulator, "UpdateCsr", json!({"id": "f".repeat(32), "name": "a"}), 400, "SCM.0707").await;
}

#[tokio::test]
async fn reminders_are_switched_for_all_or_none() {
    let emulator = start().await;
    let notices = |ids: &[&str], notices: &[&str]| {
        let item = |id: &&str| json!({"resource_id": id, "notice_type": notices});
        json!({"items": ids.iter().map(item).collect::<Vec<_>>()})
    };
    let both = ["CERT_EXPIRED", "CERT_EXPIRING"];
    fail(&emulator, "EnableNotification", notices(&[ID, "abc"], &both), 400, "SCM.0008").await;
    assert_eq!(emulator.notices(ID), [""; 0]);
    succeed(&emulator, "EnableNotification", notices(&[ID, CERTIFICATE], &both)).await;
    succeed(&emulator, "DisableNotification", notices(&[ID], &both[..1])).await;
    assert_eq!((emulator.notices(ID), emulator.notices(CERTIFICATE).len()), (vec![both[1].to_owned()], 2));
    succeed(&emulator, "DisableNotification", json!({"items": []})).await;
}

#[tokio::test]
async fn products_are_listed_and_shown() {
    let emulator = start().await;
    let list = succeed(&emulator, "ListProductTypes", json!({})).await;
    let products = list["type_list"].as_array().unwrap();
    assert_eq!(products.len(), 16);
    for product in products {
        let shown = succeed(&emulator, "ShowProduct", json!({"product_id": product["product_id"]})).await;
        for key in ["cert_type", "cert_brand", "domain_type", "effective_time"] {
            assert_eq!(shown[key], product[key], "{key}");
        }
    }
    fail(&emulator, "ShowProduct", json!({"product_id": "none"}), 400, "SCM.0005").await;
    let order = json!({
        "cert_brand": "GEOTRUST", "cert_type": "OV_SSL_CERT", "domain_type": "MULTI_DOMAIN", "effective_time": 1,
        "domain_numbers": 2, "order_number": 1, "agree_privacy_protection": true,
    });
    fail(&emulator, "SubscribeCertificate", order, 400, "SCM.0005").await;
    let free = Product { years: 0, ..Product::new("DV_SSL_CERT", "SINGLE_DOMAIN") };
    emulator.seed(&Seed::new(ID).product(free));
    assert_eq!(succeed(&emulator, "ShowCertificate", json!({"certificate_id": ID})).await["validity_period"], 3);
}
