//! How certificates look in responses.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::certificate::{Application, Certificate};
use super::life::Status;
use crate::time::{milliseconds, timestamp};

/// Returns a certificate as ShowCertificate does. What is not known yet is null.
pub(crate) fn certificate(certificate: &mut Certificate) -> Value {
    let info = certificate.draft.as_ref().map(|(_, draft)| application_info(draft));
    let proofs = proofs(certificate);
    let deployable = certificate.is_deployable();
    let Certificate { product, application, issue, .. } = certificate;
    let application = application.as_ref();
    let times = issue.as_ref().map(|issue| [issue.at, issue.not_before, issue.not_after].map(timestamp));
    let time = |index: usize| times.as_ref().map(|times| times[index].clone());
    let multi_domain_type = application
        .filter(|_| product.domain_type == "MULTI_DOMAIN")
        .map(|application| if application.domain.starts_with("*.") { "primary_wildcard" } else { "primary_single" });
    let files = issue.as_mut().map(|issue| issue.files());
    json!({
        "id": certificate.id,
        "status": certificate.status.word(),
        "order_id": certificate.order_id,
        "name": certificate.name,
        "type": product.cert_type,
        "brand": product.brand,
        "push_support": if deployable { "ON" } else { "OFF" },
        "revoke_reason": certificate.revoke_reason,
        "signature_algorithm": files.as_ref().map(|files| files.signature_algorithm),
        "issue_time": time(0),
        "not_before": time(1),
        "not_after": time(2),
        "validity_period": product.months(),
        "validation_method": application.map(|application| application.method.as_str()),
        "domain_type": product.domain_type,
        "multi_domain_type": multi_domain_type,
        "domain": application.map(|application| application.domain.as_str()),
        "sans": application.map(|application| application.sans.join(";")),
        "domain_count": product.domains,
        "wildcard_count": product.wildcards,
        "fingerprint": files.map(|files| files.fingerprint.as_str()),
        "shared": false,
        "application_info": info,
        "description": certificate.description,
        "enterprise_project_id": certificate.enterprise_project_id,
        "authentification": proofs,
    })
}

/// Returns a certificate as a row of ListCertificates.
pub(crate) fn row(certificate: &Certificate) -> Value {
    let application = certificate.application.as_ref();
    let product = &certificate.product;
    json!({
        "id": certificate.id,
        "name": certificate.name,
        "domain": application.map(|application| application.domain.as_str()),
        "sans": application.map(|application| application.sans.join(";")),
        "signature_algorithm": certificate.issue.as_ref().map(|issue| issue.signature_algorithm()),
        "deploy_support": certificate.is_deployable(),
        "type": product.cert_type,
        "brand": product.brand,
        "expire_time": certificate.issue.as_ref().map(|issue| timestamp(issue.not_after)),
        "domain_type": product.domain_type,
        "validity_period": product.months(),
        "status": certificate.status.word(),
        "domain_count": product.domains,
        "wildcard_count": product.wildcards,
        "description": certificate.description,
        "domain_id": certificate.owner,
        "enterprise_project_id": certificate.enterprise_project_id,
    })
}

/// Returns a certificate as a resource of ListCertificatesByTag.
pub(crate) fn resource(certificate: &Certificate) -> Value {
    let application = certificate.application.as_ref();
    let product = &certificate.product;
    let issue = certificate.issue.as_ref();
    json!({
        "resource_id": certificate.id,
        "resource_name": certificate.name,
        "tags": tags(certificate),
        "resource_detail": {
            "cert_id": certificate.id,
            "cert_name": certificate.name,
            "domain": application.map(|application| application.domain.as_str()),
            "cert_type": product.cert_type,
            "cert_brand": product.brand,
            "domain_type": product.domain_type,
            "purchase_period": product.years,
            "expired_time": issue.map(|issue| milliseconds(issue.not_after).to_string()),
            "order_status": certificate.status.word(),
            "domain_num": product.domains,
            "wildcard_number": product.wildcards,
            "sans": application.map(|application| application.sans.join(";")),
            "cert_des": certificate.description,
            "signature_algorithm": issue.map(|issue| issue.signature_algorithm()),
            "fail_reason": null,
            "partner_order_id": certificate.order_id,
            "push_support": certificate.is_deployable(),
            "cert_issued_time": issue.map(|issue| milliseconds(issue.at).to_string()),
            "resource_id": certificate.id,
            "unsubscribe_support": !certificate.is_imported(),
            "enterprise_project_id": certificate.enterprise_project_id,
            "origin_cert_id": null,
            "renewal_cert_id": null,
            "auto_renew_status": 0,
            "remain_cert_number": 0,
            "auto_deploy_support": false,
        },
    })
}

/// Returns the tags of a certificate, in the order of their keys.
pub(crate) fn tags(certificate: &Certificate) -> Value {
    certificate.tags.iter().map(|(key, value)| json!({"key": key, "value": value})).collect()
}

/// Returns the draft as ReadInfo does. An empty optional field is null.
pub(crate) fn draft(draft: &Value) -> Value {
    let text = |key: &str| draft[key].as_str().unwrap_or_default();
    let or_null = |key: &str| Some(text(key)).filter(|text| !text.is_empty());
    json!({
        "domain_name": text("domain"),
        "sans": text("sans"),
        "CSR": or_null("csr"),
        "country": text("country"),
        "company_name": text("company_name"),
        "company_unit": text("company_unit"),
        "company_province": text("company_province"),
        "company_city": text("company_city"),
        "applicant_name": text("applicant_name"),
        "applicant_phone": text("applicant_phone"),
        "applicant_email": text("applicant_email"),
        "contact_name": or_null("contact_name"),
        "contact_phone": or_null("contact_phone"),
        "contact_email": or_null("contact_email"),
        "bl": "0",
        "tl": "0",
    })
}

fn application_info(draft: &Value) -> Value {
    let keys = [
        "country",
        "company_name",
        "company_province",
        "company_city",
        "applicant_name",
        "applicant_phone",
        "applicant_email",
        "contact_name",
        "contact_phone",
        "contact_email",
    ];
    keys.into_iter().map(|key| (key.to_owned(), draft[key].clone())).collect()
}

/// Returns the application whose domains the applicant has to prove, if the CA waits for that.
fn unverified(certificate: &Certificate) -> Option<&Application> {
    certificate.application.as_ref().filter(|_| certificate.status == Status::CheckingDomain)
}

/// Returns the domain's proof as ShowDomainVerification does. All is null unless the CA waits for the proof.
pub(crate) fn domain_verification(certificate: &Certificate) -> Value {
    let application = unverified(certificate);
    let domain = application.map(|application| application.domain.as_str());
    let by = |email: bool| application.filter(|application| application.is_by_email() == email);
    let (by_email, by_record) = (by(true), by(false));
    let record = by_record.map(|application| record(application, &application.domain));
    let draft = certificate.draft.as_ref().filter(|_| application.is_some());
    json!({
        "domain_name": domain,
        "domain_email": by_email.map(|application| format!("admin@{}", application.domain.trim_start_matches("*."))),
        "record_name": record.as_ref().map(|(name, _)| name),
        "record_value": by_record.map(|application| record_value(certificate, &application.domain)),
        "record_type": record.as_ref().map(|(_, kind)| kind),
        "domain_method": application.map(|application| application.method.as_str()),
        "applicant_email": draft.map(|(_, draft)| &draft["applicant_email"]),
        "auto_dns_auth": application.map(|application| application.auto_dns),
    })
}

/// Returns what the applicant has to publish, a record for each domain. It is null unless the CA waits for the proof, and
/// with a proof by e-mail.
fn proofs(certificate: &Certificate) -> Option<Value> {
    let application = unverified(certificate).filter(|application| !application.is_by_email())?;
    let proof = |domain: String| {
        let (record_name, record_type) = record(application, &domain);
        let record_value = record_value(certificate, &domain);
        json!({
            "record_name": record_name, "record_type": record_type, "record_value": record_value, "domain": domain,
        })
    };
    Some(application.names().into_iter().map(proof).collect())
}

/// Returns the name and the type of the record that proves a domain.
pub(crate) fn record(application: &Application, domain: &str) -> (String, &'static str) {
    match application.method.as_str() {
        "FILE" => (format!("http://{domain}/.well-known/pki-validation/fileauth.txt"), "FILE"),
        _ => (format!("_dnsauth.{}", domain.trim_start_matches("*.")), "TXT"),
    }
}

/// Returns the value that proves a domain. It stays the same for an application.
pub(crate) fn record_value(certificate: &Certificate, domain: &str) -> String {
    let seed = format!("{} {domain} {}", certificate.id, milliseconds(certificate.since));
    let hash = Sha256::digest(seed);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
