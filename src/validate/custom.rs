//! The rules that annotations cannot express, by message: of domain names, signing requests, certificates, keys and
//! countries.
//!
//! The generated check of a message calls its function here first, and then checks the rules of the annotations. A field
//! that is reported here is not reported again. Texts are converted to the form that is sent, so that the annotations
//! measure that.

use super::{Violations, application, certificate, country, csr, names};
use crate::proto::{
    ApplyCertificateRequest, CertificateInfo, CheckCsrRequest, CreateCsrRequest, ImportCertificateRequest,
    SupplementDomainsRequest, UploadCsrRequest,
};

pub(super) fn certificate_info(info: &mut CertificateInfo, at: &str, found: &mut Violations) {
    application::check(&mut info.domain, &mut info.sans, &info.csr, at, found);
    found.report(at, "country", country::normalize(&mut info.country));
}

pub(super) fn apply_certificate_request(request: &mut ApplyCertificateRequest, at: &str, found: &mut Violations) {
    let csr = request.csr.as_deref();
    application::apply(&mut request.domain, &request.domain_method, &mut request.sans, csr, at, found);
    if let Some(country) = &mut request.country {
        found.report(at, "country", country::normalize(country));
    }
}

pub(super) fn supplement_domains_request(request: &mut SupplementDomainsRequest, at: &str, found: &mut Violations) {
    names::domains(&mut request.ori_sans, "ori_sans", at, found);
    names::domains(&mut request.add_sans, "add_sans", at, found);
}

pub(super) fn import_certificate_request(request: &mut ImportCertificateRequest, at: &str, found: &mut Violations) {
    let ImportCertificateRequest { certificate, certificate_chain, private_key, .. } = request;
    certificate::import(certificate, certificate_chain.as_mut(), private_key, at, found);
}

pub(super) fn check_csr_request(request: &mut CheckCsrRequest, at: &str, found: &mut Violations) {
    found.report(at, "csr", csr::check(&request.csr, None));
}

pub(super) fn create_csr_request(request: &mut CreateCsrRequest, at: &str, found: &mut Violations) {
    csr::create(&mut request.domain_name, &mut request.sans, at, found);
}

pub(super) fn upload_csr_request(request: &mut UploadCsrRequest, at: &str, found: &mut Violations) {
    csr::upload(&request.csr, request.private_key.as_mut(), at, found);
}
