//! Each RPC's REST side, which `build.rs` generates from the annotations of `proto/`.

use crate::proto::json::Joined;

include!(concat!(env!("OUT_DIR"), "/methods.rs"));

#[cfg(test)]
mod tests {
    use super::SaveInfo;
    use crate::scm::api::RestMethod as _;

    #[test]
    fn the_annotations_bind_the_rpc() {
        assert_eq!(SaveInfo::RPC, "huaweicloud.scm.v1.CertificateService/SaveInfo");
        let method = SaveInfo::METHOD;
        assert_eq!((&method.http, method.template), (&http::Method::POST, "/v2/{project_id}/scm/cert/{cert_id}/save"));
        assert!(method.idempotent);
    }
}
