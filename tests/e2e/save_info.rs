//! SaveInfo: the request that SCM receives, byte for byte.

use scm_emulator::{Emulator, Options, SAMPLE_PROJECT};
use scm_gateway::{
    clock::Clock,
    proto::{CertificateInfo, SaveInfoRequest},
};
use std::sync::Arc;

use crate::harness::{CERT, Gateway, emulator, environment, sample, sample_info, standing};

const SAMPLE_BODY: &str = concat!(
    r#"{"domain":"www.xzz.com","sans":"","csr":"","company_name":"Huawei Chengdu branch","#,
    r#""company_unit":"Human Resource Dept","company_province":"Sichuan","company_city":"Chengdu","country":"CN","#,
    r#""applicant_name":"Tom","applicant_phone":"13212345678","applicant_email":"9997342346@qq.com","#,
    r#""contact_name":"Jacky","contact_phone":"13512345678","contact_email":"jk@jk.ff","#,
    r#""agree_privacy_protection":true}"#
);

#[tokio::test]
async fn sample_is_sent_byte_for_byte() {
    let emulator = Emulator::start(Options { now: Arc::new(standing), ..Options::default() }).await.unwrap();
    let gateway = Gateway::start(environment(&emulator.endpoint(), &[]), Clock::from_fn(standing)).await;

    let reply = gateway.save(sample()).await.unwrap();

    assert_eq!(reply.get_ref().request_info, "success");
    let journal = emulator.journal();
    assert_eq!((journal.len(), emulator.attempts(), emulator.rejections().len()), (1, 1, 0));
    let sent = &journal[0];
    assert_eq!(sent.method, "POST");
    assert_eq!(sent.target, format!("/v2/{SAMPLE_PROJECT}/scm/cert/{CERT}/save"));
    assert_eq!(String::from_utf8_lossy(&sent.body), SAMPLE_BODY);
    let mut headers: Vec<_> = sent.headers.iter().map(|(name, value)| (name.to_lowercase(), value.as_str())).collect();
    headers.sort();
    let names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "accept",
            "authorization",
            "content-length",
            "content-type",
            "host",
            "traceparent",
            "user-agent",
            "x-project-id",
            "x-sdk-date"
        ]
    );
    assert_eq!(sent.header("content-type"), Some("application/json"));
    assert_eq!(sent.header("host").unwrap(), emulator.address().to_string());
    assert_eq!(sent.header("user-agent").unwrap(), concat!("scm-gateway/", env!("CARGO_PKG_VERSION")));
    assert_eq!(sent.header("x-project-id"), Some(SAMPLE_PROJECT));
    assert_eq!(sent.header("x-sdk-date"), Some("20220809T040506Z"));
    assert_eq!(sent.header("content-length").unwrap(), SAMPLE_BODY.len().to_string());
    let authorization = sent.header("authorization").unwrap();
    let scope = "SDK-HMAC-SHA256 Access=EXAMPLEAK0000000000A, \
                 SignedHeaders=content-type;host;x-project-id;x-sdk-date, Signature=";
    assert!(authorization.starts_with(scope), "{authorization}");
}

#[tokio::test]
async fn fields_are_sent_in_the_wire_format_of_scm() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let info = CertificateInfo {
        domain: "*.bücher.example".into(),
        sans: vec!["B.example".into(), "bücher.example".into()],
        country: "cn".into(),
        company_name: "华为 \"成都\" \\ 😀".into(),
        company_unit: None,
        contact_name: Some(String::new()),
        contact_phone: None,
        ..sample_info()
    };
    gateway.save(SaveInfoRequest { info: Some(info), ..sample() }).await.unwrap();

    let saved = emulator.saved(SAMPLE_PROJECT, CERT).unwrap();
    assert_eq!(saved["domain"], "*.xn--bcher-kva.example");
    assert_eq!(saved["sans"], "B.example;xn--bcher-kva.example");
    assert_eq!(saved["country"], "CN");
    assert_eq!(saved["company_name"], "华为 \"成都\" \\ 😀");
    assert_eq!(saved["contact_name"], "");
    assert!(saved.get("company_unit").is_none() && saved.get("contact_phone").is_none());
}

#[tokio::test]
async fn csr_is_sent_byte_for_byte() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    let key = rcgen::KeyPair::generate().unwrap();
    let request =
        rcgen::CertificateParams::new(vec!["www.xzz.com".to_owned()]).unwrap().serialize_request(&key).unwrap();
    let pem = format!("\r\n{}\n", request.pem().unwrap());
    let info = CertificateInfo { csr: pem.clone(), ..sample_info() };

    gateway.save(SaveInfoRequest { info: Some(info), ..sample() }).await.unwrap();

    assert_eq!(emulator.saved(SAMPLE_PROJECT, CERT).unwrap()["csr"], pem);
}

#[tokio::test]
async fn second_save_replaces_the_draft() {
    let emulator = emulator().await;
    let gateway = Gateway::of(&emulator).await;
    gateway.save(sample()).await.unwrap();
    let info = CertificateInfo { company_city: "Mianyang".into(), ..sample_info() };
    gateway.save(SaveInfoRequest { info: Some(info), ..sample() }).await.unwrap();

    assert_eq!(emulator.saved(SAMPLE_PROJECT, CERT).unwrap()["company_city"], "Mianyang");
    assert_eq!(emulator.connections(), 1, "the connection is reused");
}
