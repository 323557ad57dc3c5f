//! ReadInfo: the second RPC. Its code is generated from the proto, except the vendor's wire format.

use scm_emulator::{Reply, SAMPLE_PROJECT, Step};
use scm_gateway::proto::{CertificateInfo, SaveInfoRequest};
use tonic::Code;

use crate::harness::{CERT, Gateway, assert_status, emulator, fields, read, sample, sample_info};

#[tokio::test]
async fn saved_information_is_read() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let info = CertificateInfo { sans: vec!["xzz.com".into(), "m.xzz.com".into()], ..sample_info() };
    gateway.save(SaveInfoRequest { info: Some(info.clone()), ..sample() }).await.unwrap();

    let reply = gateway.client.clone().read_info(read()).await.unwrap();

    assert!(reply.metadata().contains_key("x-upstream-request-id"));
    let reply = reply.into_inner();
    assert_eq!(reply.info.unwrap(), CertificateInfo { agree_privacy_protection: false, ..info });
    assert!(!reply.bank_licence_uploaded && !reply.business_licence_uploaded);
    let sent = &emulator.journal()[1];
    assert_eq!((sent.method.as_str(), sent.body.len()), ("POST", 0));
    assert_eq!(sent.target, format!("/v2/{SAMPLE_PROJECT}/scm/cert/{CERT}/read"));
    assert_eq!(sent.header("content-type"), Some("application/json"));
    assert_eq!(sent.header("content-length"), Some("0"));
}

#[tokio::test]
async fn nulls_and_missing_keys_are_unset_fields() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    emulator.script(Step::Reply(Reply::json(
        200,
        r#"{"domain_name":"a.b","sans":null,"CSR":null,"contact_name":null,"bl":"1","tl":"1"}"#,
    )));

    let reply = gateway.client.clone().read_info(read()).await.unwrap().into_inner();

    assert_eq!(reply.info.unwrap(), CertificateInfo { domain: "a.b".into(), ..CertificateInfo::default() });
    assert!(reply.bank_licence_uploaded && reply.business_licence_uploaded);
}

#[tokio::test]
async fn unsaved_information_is_not_found() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let status = gateway.client.clone().read_info(read()).await.unwrap_err();
    assert_status(&status, Code::NotFound, "CERTIFICATE_NOT_FOUND", Some(1));
}

#[tokio::test]
async fn invalid_certificate_id_is_rejected() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let request = scm_gateway::proto::ReadInfoRequest { cert_id: "../x".into(), ..read() };
    let status = gateway.client.clone().read_info(request).await.unwrap_err();
    assert_status(&status, Code::InvalidArgument, "INVALID_REQUEST", None);
    assert_eq!(fields(&status), ["cert_id"]);
    assert_eq!(emulator.attempts(), 0);
}
