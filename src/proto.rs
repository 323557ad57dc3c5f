//! The messages that `build.rs` generates from `proto/`, and their JSON form.

#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated; its documentation is the proto's")]

pub(crate) mod json;

include!(concat!(env!("OUT_DIR"), "/huaweicloud.scm.v1.rs"));

include!(concat!(env!("OUT_DIR"), "/messages.rs"));

/// An RPC, as configurations and permissions know it.
#[derive(Debug)]
pub struct Rpc {
    /// The full name, `package.Service/Method`.
    pub name: &'static str,
    /// Whether the RPC has no side effects.
    pub read_only: bool,
    /// Whether the operator has to grant the RPC by its name.
    pub granted_by_name: bool,
}

impl Rpc {
    /// Returns the name of the RPC without its service.
    pub fn short_name(&self) -> &'static str {
        self.name.rsplit('/').next().unwrap_or(self.name)
    }

    /// Returns the full name of the RPC's service.
    pub fn service(&self) -> &'static str {
        self.name.split('/').next().unwrap_or(self.name)
    }
}

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
