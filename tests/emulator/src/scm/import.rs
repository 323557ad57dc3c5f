//! Stores a certificate of the caller's own.

use serde_json::json;

use super::Outcome;
use super::certificate::Certificate;
use super::failure::Failure;
use super::pki::Files;
use super::store::World;
use super::x509::{CertificateFacts, PublicKey, is_private_key};
use crate::api::Input;

pub(super) fn import_certificate(input: &Input, world: &mut World<'_>) -> Outcome {
    let text = |key: &str| input.text(key).trim_matches(['\r', '\n']);
    if !input.text("name").bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
        return Err(Failure::new(400, "SCM.0032", "The name has other characters"));
    }
    let facts = certificates(text("certificate"))?;
    let Some((leaf, further)) = facts.split_first() else {
        return Err(Failure::new(400, "SCM.0031", "The certificate cannot be parsed"));
    };
    let chain = CertificateFacts::read(text("certificate_chain"))
        .ok_or_else(|| Failure::new(400, "SCM.0013", "The certificate chain cannot be read"))?;
    let Some(issuer) = chain.first().or(further.first()) else {
        // The user guide rejects a chain of one certificate. The code is not documented.
        return Err(Failure::new(400, "SCM.0006", "The certificate has no chain"));
    };
    if issuer.subject != leaf.issuer {
        return Err(Failure::new(400, "SCM.0079", "The CA's subject differs from the certificate's issuer"));
    }
    if leaf.names.is_empty() {
        return Err(Failure::new(400, "SCM.0009", "The certificate has no domain"));
    }
    if leaf.not_after <= world.now {
        return Err(Failure::new(400, "SCM.0006", "The certificate has expired"));
    }
    check_private_key(leaf.key.as_ref(), text("private_key"))?;
    if input.flag("duplicate_check") == Some(true) && is_duplicate(world, &leaf.fingerprint) {
        // The code is not documented.
        return Err(Failure::new(400, "SCM.0006", "The certificate exists already"));
    }
    let optional = |key: &str| Some(text(key).to_owned()).filter(|text| !text.is_empty());
    let line = |text: &str| if text.is_empty() { String::new() } else { format!("{text}\n") };
    let (certificate, chain) = split(text("certificate"), text("certificate_chain"));
    let files = Files {
        certificate: line(certificate),
        chain: line(chain),
        private_key: Some(line(text("private_key"))),
        enc_certificate: optional("enc_certificate"),
        enc_private_key: optional("enc_private_key"),
        not_before: leaf.not_before,
        not_after: leaf.not_after,
        signature_algorithm: leaf.signature_algorithm,
        fingerprint: leaf.fingerprint.clone(),
    };
    let id = world.new_id();
    let mut certificate = Certificate::imported(&id, &world.account.domain_id, &leaf.names, files, world.now);
    input.text("name").clone_into(&mut certificate.name);
    if !matches!(input.text("enterprise_project_id"), "" | "all") {
        input.text("enterprise_project_id").clone_into(&mut certificate.enterprise_project_id);
    }
    world.store.certificates.insert(id.clone(), certificate);
    Ok(json!({"certificate_id": id}))
}

fn certificates(pem: &str) -> Result<Vec<CertificateFacts>, Failure> {
    if pem.is_empty() {
        return Err(Failure::new(400, "SCM.0054", "The certificate is empty"));
    }
    if !(pem.starts_with("-----BEGIN") && pem.ends_with("-----")) {
        return Err(Failure::new(400, "SCM.0053", "The certificate lacks its first or last line"));
    }
    CertificateFacts::read(pem).ok_or_else(|| Failure::new(400, "SCM.0006", "The certificate cannot be read"))
}

/// Checks a private key and whether it belongs to a public key. Of algorithms that the cryptographic library lacks, only
/// the form is checked.
pub(super) fn check_private_key(public: Option<&PublicKey>, private_key: &str) -> Result<(), Failure> {
    if private_key.is_empty() {
        return Err(Failure::new(400, "SCM.0059", "The private key is empty"));
    }
    if !(private_key.starts_with("-----BEGIN") && private_key.ends_with("-----")) {
        return Err(Failure::new(400, "SCM.0114", "The private key lacks its first or last line"));
    }
    if !is_private_key(private_key) {
        return Err(Failure::new(400, "SCM.0012", "The private key cannot be read"));
    }
    match public.and_then(|public| public.belongs_to(private_key)) {
        Some(false) => Err(Failure::new(400, "SCM.0014", "The certificate and the private key do not match")),
        Some(true) | None => Ok(()),
    }
}

fn is_duplicate(world: &mut World<'_>, fingerprint: &str) -> bool {
    let mut issues = world.certificates().into_iter().filter_map(|certificate| certificate.issue.as_ref());
    issues.any(|issue| issue.has_fingerprint(fingerprint))
}

/// Splits off the first certificate. The further ones are the chain, unless there is another.
fn split<'a>(certificates: &'a str, chain: &'a str) -> (&'a str, &'a str) {
    const END: &str = "-----END CERTIFICATE-----";
    let end = certificates.find(END).map_or(certificates.len(), |at| at + END.len());
    let (first, rest) = certificates.split_at(end);
    (first, if chain.is_empty() { rest.trim() } else { chain })
}
