//! Lists, shows, exports, modifies, revokes and deletes certificates.

use std::cmp::Ordering;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::certificate::Certificate;
use super::failure::Failure;
use super::life::{Action, Status};
use super::store::World;
use super::{Outcome, show};
use crate::api::Input;

pub(super) fn list_certificates(input: &Input, world: &mut World<'_>) -> Outcome {
    let now = world.now;
    let is_listed = |certificate: &Certificate| {
        let expired_for = certificate.issue.as_ref().and_then(|issue| now.duration_since(issue.not_after).ok());
        let project = input.text("enterprise_project_id");
        has_status(certificate, input.text("status"))
            && (matches!(project, "" | "all") || certificate.enterprise_project_id == project)
            && (input.flag("deploy_support") != Some(true) || certificate.is_deployable())
            && is_within(expired_for, input.number("expired_days_since"))
            && contains(certificate, input.text("content"))
    };
    let mut listed = world.certificates();
    listed.retain(|certificate| is_listed(certificate));
    listed.sort_by(|a, b| {
        let order = compare(a, b, input.text("sort_key"));
        if input.text("sort_dir") == "ASC" { order } else { order.reverse() }
    });
    let rows = listed.iter().map(|certificate| show::row(certificate));
    Ok(json!({"certificates": page(input, rows), "total_count": listed.len()}))
}

/// Whether a filter names the state. `CHECKING` finds the waits for the domain's proof, too.
fn has_status(certificate: &Certificate, filter: &str) -> bool {
    match filter {
        "" | "ALL" => true,
        "CHECKING" if certificate.status == Status::CheckingDomain => true,
        _ => certificate.status.word() == filter,
    }
}

/// Whether a certificate is valid, or has expired for no more than these days.
fn is_within(expired_for: Option<Duration>, days: Option<i64>) -> bool {
    let days = days.and_then(|days| u64::try_from(days).ok());
    match (expired_for, days) {
        (Some(expired_for), Some(days)) => expired_for <= Duration::from_secs(days * 24 * 60 * 60),
        _ => true,
    }
}

fn contains(certificate: &Certificate, content: &str) -> bool {
    let names = certificate.application.iter().flat_map(|application| application.names());
    content.is_empty() || certificate.name.contains(content) || names.into_iter().any(|name| name.contains(content))
}

fn compare(a: &Certificate, b: &Certificate, key: &str) -> Ordering {
    let expiry = |certificate: &Certificate| certificate.issue.as_ref().map(|issue| issue.not_after);
    match key {
        "certExpiredTime" => expiry(a).cmp(&expiry(b)),
        "certStatus" => a.status.word().cmp(b.status.word()),
        _ => a.updated.cmp(&b.updated),
    }
}

/// Returns the rows of the page that `limit` and `offset` select: ten rows from the first one, unless they say otherwise.
pub(super) fn page(input: &Input, rows: impl Iterator<Item = Value>) -> Value {
    let number = |key: &str, default: usize| {
        input.number(key).and_then(|number| usize::try_from(number).ok()).unwrap_or(default)
    };
    rows.skip(number("offset", 0)).take(number("limit", 10)).collect()
}

pub(super) fn show_certificate(input: &Input, world: &mut World<'_>) -> Outcome {
    world.certificate(input.text("certificate_id")).map(show::certificate)
}

pub(super) fn export_certificate(input: &Input, world: &mut World<'_>) -> Outcome {
    let certificate = world.certificate_for(input.text("certificate_id"), Action::Export)?;
    let files = certificate.issue.as_mut().ok_or_else(Failure::state)?.files();
    let mut answer = Map::new();
    for (key, text) in [
        ("entire_certificate", Some(format!("{}{}", files.certificate, files.chain))),
        ("certificate", Some(files.certificate.clone())),
        ("certificate_chain", Some(files.chain.clone())),
        ("private_key", files.private_key.clone()),
        ("enc_certificate", files.enc_certificate.clone()),
        ("enc_private_key", files.enc_private_key.clone()),
    ] {
        answer.extend(text.map(|text| (key.to_owned(), Value::String(text))));
    }
    Ok(Value::Object(answer))
}

pub(super) fn modify_certificate(input: &Input, world: &mut World<'_>) -> Outcome {
    let now = world.now;
    let certificate = world.certificate(input.text("cert_id"))?;
    let value = input.text("modify_value");
    if input.text("modify_key") == "CERT_NAME" {
        let is_name = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !is_name || !(1..=63).contains(&value.len()) {
            return Err(Failure::new(400, "SCM.0024", "modify_value is no name"));
        }
        value.clone_into(&mut certificate.name);
    } else {
        value.clone_into(&mut certificate.description);
    }
    certificate.updated = now;
    Ok(json!({"response_info": "success"}))
}

pub(super) fn revoke_certificate(input: &Input, world: &mut World<'_>) -> Outcome {
    let now = world.now;
    let certificate = world.certificate_for(input.text("cert_id"), Action::Revoke)?;
    certificate.revoke_reason = Some(input.text("reason").to_owned());
    certificate.enter(Status::Revoking, now);
    Ok(json!({"message": "success"}))
}

pub(super) fn delete_certificate(input: &Input, world: &mut World<'_>) -> Outcome {
    let id = input.text("certificate_id");
    world.certificate_for(id, Action::Delete)?;
    world.remove(id);
    Ok(Value::Null)
}
