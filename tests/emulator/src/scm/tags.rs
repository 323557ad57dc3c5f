//! Tags, and the certificates that have them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::certificate::Certificate;
use super::certificates::page;
use super::failure::Failure;
use super::store::World;
use super::{Outcome, show};
use crate::api::Input;

pub(super) fn create_certificate_tag(input: &Input, world: &mut World<'_>) -> Outcome {
    let certificate = world.certificate(input.text("resource_id"))?;
    let tag = input.0.get("tag").unwrap_or(&Value::Null);
    let (key, value) = key_and_value(tag);
    if key.is_empty() {
        return Err(Failure::missing("tag.key"));
    }
    // Not documented: whether an existing key is overwritten.
    certificate.tags.insert(key, value);
    Ok(json!({"desc": "success"}))
}

pub(super) fn batch_create_or_delete_tags(input: &Input, world: &mut World<'_>) -> Outcome {
    let certificate = world.certificate(input.text("resource_id"))?;
    let tags: Vec<_> = input.list("tags").iter().map(key_and_value).collect();
    if let Some(index) = tags.iter().position(|(key, _)| key.is_empty()) {
        return Err(Failure::missing(&format!("tags[{index}].key")));
    }
    for (key, value) in tags {
        match input.text("action") {
            "delete" => certificate.tags.remove(&key),
            _ => certificate.tags.insert(key, value),
        };
    }
    Ok(json!({"desc": "success"}))
}

fn key_and_value(tag: &Value) -> (String, String) {
    let text = |key: &str| tag[key].as_str().unwrap_or_default().to_owned();
    (text("key"), text("value"))
}

pub(super) fn list_tags_by_certificate(input: &Input, world: &mut World<'_>) -> Outcome {
    let certificate = world.certificate(input.text("resource_id"))?;
    Ok(json!({"tags": show::tags(certificate)}))
}

pub(super) fn list_all_tags(_: &Input, world: &mut World<'_>) -> Outcome {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for certificate in world.certificates() {
        for (key, value) in &certificate.tags {
            all.entry(key.clone()).or_default().insert(value.clone());
        }
    }
    let tags: Vec<_> = all.into_iter().map(|(key, values)| json!({"key": key, "values": values})).collect();
    Ok(json!({"tags": tags}))
}

pub(super) fn list_certificates_by_tag(input: &Input, world: &mut World<'_>) -> Outcome {
    const LISTS: [&str; 4] = ["tags", "tags_any", "not_tags", "not_tags_any"];
    for list in LISTS {
        if let Some(index) = input.list(list).iter().position(|tag| tag.get("values").is_none()) {
            return Err(Failure::missing(&format!("{list}[{index}].values")));
        }
    }
    let is_count = input.text("action") == "count";
    if let Some(key) = ["limit", "offset"].into_iter().find(|key| is_count && input.number(key).is_some()) {
        return Err(Failure::parameter(&format!("{key} does not suit the action")));
    }
    let is_listed = |certificate: &Certificate| {
        let has = |tag: &Value| has_tag(certificate, tag);
        let [tags, tags_any, not_tags, not_tags_any] = LISTS.map(|list| input.list(list));
        let by_tag = if input.flag("without_any_tag") == Some(true) {
            certificate.tags.is_empty()
        } else {
            tags.iter().all(has)
                && (tags_any.is_empty() || tags_any.iter().any(has))
                && (not_tags.is_empty() || !not_tags.iter().all(has))
                && !not_tags_any.iter().any(has)
        };
        by_tag && input.list("matches").iter().all(|wanted| matches(certificate, wanted))
    };
    let mut listed = world.certificates();
    listed.retain(|certificate| is_listed(certificate));
    if is_count {
        return Ok(json!({"total_count": listed.len()}));
    }
    let resources = listed.iter().map(|certificate| show::resource(certificate));
    Ok(json!({"resources": page(input, resources), "total_count": listed.len()}))
}

/// Whether a certificate has a key with one of the values. An empty list means any value.
fn has_tag(certificate: &Certificate, tag: &Value) -> bool {
    let values = tag["values"].as_array().map_or(&[][..], Vec::as_slice);
    let own = tag["key"].as_str().and_then(|key| certificate.tags.get(key));
    own.is_some_and(|own| values.is_empty() || values.iter().any(|value| value == own))
}

/// Whether the name of a certificate contains the value. The vendor documents no other key.
fn matches(certificate: &Certificate, wanted: &Value) -> bool {
    let (key, value) = key_and_value(wanted);
    key == "resource_name" && certificate.name.contains(&value)
}
