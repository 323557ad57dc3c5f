//! The errors of SCM, with the vendor's codes and statuses.

/// An error of SCM itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(status: u16, code: &'static str, text: &str) -> Self {
        Self { status, code, text: text.to_owned() }
    }

    /// A parameter is wrong. The text names its key, and no value.
    pub(crate) fn parameter(text: &str) -> Self {
        Self::new(400, "SCM.0005", &format!("Parameter error: {text}"))
    }

    pub(crate) fn missing(key: &str) -> Self {
        Self::parameter(&format!("{key} is missing"))
    }

    pub(crate) fn no_certificate() -> Self {
        Self::new(400, "SCM.0008", "The certificate does not exist")
    }

    /// The certificate was deleted or returned. Terraform's provider expects this status.
    pub(crate) fn gone() -> Self {
        Self::new(404, "SCM.0008", "The certificate does not exist")
    }

    pub(crate) fn foreign() -> Self {
        Self::new(400, "SCM.0003", "The certificate does not belong to the tenant")
    }

    pub(crate) fn state() -> Self {
        Self::new(400, "SCM.0010", "The operation is not allowed in the certificate's state")
    }

    /// The number or the form of the domains does not suit the certificate.
    pub(crate) fn domains() -> Self {
        Self::new(400, "SCM.0015", "The domains do not suit the certificate")
    }

    pub(crate) fn no_csr() -> Self {
        Self::new(400, "SCM.0707", "The CSR does not exist")
    }
}
