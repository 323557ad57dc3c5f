//! Reminders of the expiry of certificates.

use serde_json::Value;

use super::Outcome;
use super::certificate::Certificate;
use super::store::World;
use crate::api::Input;

pub(super) fn enable_notification(input: &Input, world: &mut World<'_>) -> Outcome {
    switch(input, world, |certificate, notice| {
        certificate.notices.insert(notice.to_owned());
    })
}

pub(super) fn disable_notification(input: &Input, world: &mut World<'_>) -> Outcome {
    switch(input, world, |certificate, notice| {
        certificate.notices.remove(notice);
    })
}

/// Switches each notice of each certificate. If one does not exist, nothing is switched.
fn switch(input: &Input, world: &mut World<'_>, switch: fn(&mut Certificate, &str)) -> Outcome {
    let id = |item: &Value| item["resource_id"].as_str().unwrap_or_default().to_owned();
    let items = input.list("items");
    for item in items {
        world.certificate(&id(item))?;
    }
    for item in items {
        let certificate = world.certificate(&id(item))?;
        let notices = item["notice_type"].as_array().into_iter().flatten();
        notices.filter_map(Value::as_str).for_each(|notice| switch(certificate, notice));
    }
    Ok(Value::Null)
}
