//! Code shared by the floors and the rig: the generated types, a sample request, and all of a floor except its HTTP
//! client.

mod service;
mod signature;

pub use service::{Client, serve};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The code generated from the proto.
#[allow(clippy::doc_overindented_list_items, reason = "the comments are the proto's")]
pub mod proto {
    tonic::include_proto!("huaweicloud.scm.v1");

    fn joined<S: serde::Serializer>(list: &[String], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&list.join(";"))
    }
}

/// The project of all calls.
pub const PROJECT: &str = "5a9b2cd9d2f8471d84e3ac2ac3d0a2c5";

/// Returns the vendor's example request.
pub fn sample() -> proto::SaveInfoRequest {
    proto::SaveInfoRequest {
        project_id: PROJECT.into(),
        cert_id: "scs1600313391828".into(),
        info: Some(proto::CertificateInfo {
            domain: "www.xzz.com".into(),
            company_name: "Huawei Chengdu branch".into(),
            company_unit: Some("Human Resource Dept".into()),
            company_province: "Sichuan".into(),
            company_city: "Chengdu".into(),
            country: "CN".into(),
            applicant_name: "Tom".into(),
            applicant_phone: "13212345678".into(),
            applicant_email: "9997342346@qq.com".into(),
            contact_name: Some("Jacky".into()),
            contact_phone: Some("13512345678".into()),
            contact_email: Some("jk@jk.ff".into()),
            agree_privacy_protection: true,
            ..Default::default()
        }),
    }
}
