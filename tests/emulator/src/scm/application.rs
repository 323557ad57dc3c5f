//! Draft, application, proof and withdrawal.

use serde_json::{Value, json};

use super::certificate::Application;
use super::failure::Failure;
use super::life::{Action, Status};
use super::pki::can_generate;
use super::seed::Product;
use super::store::{World, split};
use super::x509::CsrFacts;
use super::{Outcome, show};
use crate::api::Input;

pub(super) fn save_info(input: &Input, world: &mut World<'_>) -> Outcome {
    let certificate = world.certificate_for(input.text("cert_id"), Action::Apply)?;
    let draft = without(input, &["project_id", "cert_id"]);
    certificate.draft = Some((input.text("project_id").to_owned(), draft));
    Ok(json!({"request_info": "success"}))
}

pub(super) fn read_info(input: &Input, world: &mut World<'_>) -> Outcome {
    let certificate = world.certificate(input.text("cert_id"))?;
    // Not documented: a certificate without a draft.
    let (_, draft) = certificate.draft.as_ref().ok_or_else(Failure::no_certificate)?;
    Ok(show::draft(draft))
}

pub(super) fn check_csr(input: &Input, _: &mut World<'_>) -> Outcome {
    let facts = CsrFacts::read(input.text("csr")).ok_or_else(|| Failure::parameter("csr cannot be read"))?;
    let domain = facts.names.first().ok_or_else(|| Failure::parameter("csr names no domain"))?;
    Ok(json!({"domain": domain}))
}

pub(super) fn apply_certificate(input: &Input, world: &mut World<'_>) -> Outcome {
    let now = world.now;
    let project = world.account.projects.first().cloned().unwrap_or_default();
    let certificate = world.certificate_for(input.text("certificate_id"), Action::Apply)?;
    let application = application(input, &certificate.product)?;
    certificate.application = Some(application);
    let project = certificate.draft.take().map_or(project, |(project, _)| project);
    certificate.draft = Some((project, without(input, &["certificate_id"])));
    certificate.enter(Status::CheckingDomain, now);
    Ok(json!({"request_info": "success"}))
}

/// Checks an application against the product.
fn application(input: &Input, product: &Product) -> Result<Application, Failure> {
    let domain = input.text("domain").to_owned();
    let sans = split(input.text("sans"));
    let method = input.text("domain_method");
    if product.names_an_organization() {
        let keys = ["company_name", "company_province", "company_city", "country"];
        if let Some(key) = keys.into_iter().find(|key| input.text(key).is_empty()) {
            return Err(Failure::missing(key));
        }
    }
    if product.cert_type.starts_with("OV") && product.brand == "GEOTRUST" && input.text("ca_hash_algorithm").is_empty()
    {
        return Err(Failure::missing("ca_hash_algorithm"));
    }
    let is_ip = domain.parse::<std::net::Ipv4Addr>().is_ok();
    let is_dv = !product.names_an_organization();
    if is_ip != (method == "FILE") || is_dv && method == "EMAIL" {
        return Err(Failure::parameter("domain_method does not suit the certificate"));
    }
    let mut names = vec![domain.clone()];
    names.extend(sans.iter().cloned());
    if !is_ip {
        suits(product, &names)?;
    } else if names.len() > 1 {
        return Err(Failure::domains());
    }
    let csr = Some(input.text("csr")).filter(|csr| !csr.is_empty());
    if let Some(csr) = csr {
        let facts = CsrFacts::read(csr).ok_or_else(|| Failure::parameter("csr cannot be read"))?;
        if !facts.is_for(&domain) {
            return Err(Failure::parameter("csr is not for the domain"));
        }
    }
    let key_algorithm = Some(input.text("key_algorithm")).filter(|name| !name.is_empty()).unwrap_or("RSA_2048");
    if !can_generate(key_algorithm) {
        return Err(Failure::parameter("key_algorithm is not one of this CA"));
    }
    Ok(Application {
        domain,
        sans,
        csr: csr.map(str::to_owned),
        key_algorithm: key_algorithm.to_owned(),
        method: method.to_owned(),
        auto_dns: input.flag("auto_dns_auth").unwrap_or(false),
    })
}

/// Checks number and form of the domains.
fn suits(product: &Product, names: &[String]) -> Result<(), Failure> {
    let count = |names: usize| u32::try_from(names).unwrap_or(u32::MAX);
    let wildcards = count(names.iter().filter(|name| name.starts_with("*.")).count());
    let suits = match product.domain_type.as_str() {
        "WILDCARD" => names.len() == 1 && wildcards == 1,
        "MULTI_DOMAIN" => count(names.len()) <= product.domains && wildcards <= product.wildcards,
        _ => names.len() == 1 && wildcards == 0,
    };
    if suits && names.iter().all(|name| is_host_name(name)) { Ok(()) } else { Err(Failure::domains()) }
}

fn is_host_name(name: &str) -> bool {
    let name = name.strip_prefix("*.").unwrap_or(name);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let is_label = |label: &str| !label.is_empty() && label.len() <= 63 && label.bytes().all(allowed);
    name.len() <= 253 && name.contains('.') && name.split('.').all(is_label)
}

pub(super) fn show_domain_verification(input: &Input, world: &mut World<'_>) -> Outcome {
    world.certificate(input.text("cert_id")).map(|certificate| show::domain_verification(certificate))
}

pub(super) fn cancel_certificate_request(input: &Input, world: &mut World<'_>) -> Outcome {
    let now = world.now;
    let certificate = world.certificate_for(input.text("certificate_id"), Action::Cancel)?;
    let next = match certificate.status {
        Status::SupplementChecking => Status::CancelSupplementing,
        _ => Status::CancelChecking,
    };
    certificate.enter(next, now);
    Ok(json!({"cert_id": certificate.id, "message": "success"}))
}

pub(super) fn supplement_domains(input: &Input, world: &mut World<'_>) -> Outcome {
    let now = world.now;
    let certificate = world.certificate_for(input.text("cert_id"), Action::Supplement)?;
    let application = certificate.application.as_ref().ok_or_else(Failure::state)?;
    // Not documented: whether `ori_sans` has the domain, too. They are not compared.
    let added = split(input.text("add_sans"));
    let mut names = application.names();
    names.extend(added.iter().cloned());
    let mut unique = names.clone();
    unique.sort();
    unique.dedup();
    suits(&certificate.product, &names)?;
    if added.is_empty() || unique.len() < names.len() {
        return Err(Failure::domains());
    }
    certificate.added = added;
    certificate.enter(Status::SupplementChecking, now);
    Ok(json!({"request_info": "success"}))
}

pub(super) fn cancel_privacy_authorization(input: &Input, world: &mut World<'_>) -> Outcome {
    let certificate = world.certificate_for(input.text("cert_id"), Action::ForgetPerson)?;
    certificate.draft = None;
    Ok(json!({"message": "success"}))
}

/// Returns the input as JSON, without the path variables.
fn without(input: &Input, variables: &[&str]) -> Value {
    let fields = input.0.iter().filter(|(key, _)| !variables.contains(&key.as_str()));
    fields.map(|(key, value)| (key.clone(), value.clone())).collect()
}
