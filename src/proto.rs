//! What `build.rs` printed from `proto/`: messages, the tonic client and service, and each RPC's REST side.

#![allow(missing_docs, unreachable_pub, clippy::all, reason = "printed; its documentation is the proto's")]

tonic::include_proto!("huaweicloud.scm.v1");

include!(concat!(env!("OUT_DIR"), "/binding.rs"));

/// The compiled proto with everything it imports, for server reflection.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor_set.bin"));

#[cfg(test)]
mod tests {
    use super::{CertificateInfo, SaveInfo, SaveInfoRequest};
    use crate::rest::RestMethod as _;

    #[test]
    fn the_annotations_bind_the_rpc() {
        assert_eq!(SaveInfo::RPC, "huaweicloud.scm.v1.CertificateService/SaveInfo");
        assert_eq!(SaveInfo::TEMPLATE, "/v2/{project_id}/scm/cert/{cert_id}/save");
        assert_eq!(SaveInfo::HTTP, http::Method::POST);
        const { assert!(SaveInfo::IDEMPOTENT) }
    }

    #[test]
    fn a_message_shows_nothing_of_its_content() {
        let info = CertificateInfo { applicant_name: "marker".to_owned(), ..CertificateInfo::default() };
        let request = SaveInfoRequest { info: Some(info), ..SaveInfoRequest::default() };
        assert_eq!(format!("{request:?}"), "SaveInfoRequest([REDACTED])");
    }
}
