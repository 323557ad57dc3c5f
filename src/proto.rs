//! The messages that `build.rs` generates from `proto/`, and their JSON form.

#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated; its documentation is the proto's")]

pub(crate) mod json;

include!(concat!(env!("OUT_DIR"), "/huaweicloud.scm.v1.rs"));

include!(concat!(env!("OUT_DIR"), "/messages.rs"));

/// The compiled proto with everything it imports, for server reflection.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor_set.bin"));

#[cfg(test)]
mod tests {
    use super::{CertificateInfo, SaveInfoRequest};

    #[test]
    fn debug_output_of_a_message_is_redacted() {
        let info = CertificateInfo { applicant_name: "marker".to_owned(), ..CertificateInfo::default() };
        let request = SaveInfoRequest { info: Some(info), ..SaveInfoRequest::default() };
        assert_eq!(format!("{request:?}"), "SaveInfoRequest([REDACTED])");
    }
}
