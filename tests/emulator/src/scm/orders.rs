//! Products, and the certificates that are bought and returned.

use serde_json::{Value, json};

use super::Outcome;
use super::certificate::Certificate;
use super::failure::Failure;
use super::life::Action;
use super::seed::Product;
use super::store::World;
use crate::api::Input;

const BRANDS: [(&str, u32); 2] = [("GEOTRUST", 101_005), ("GLOBALSIGN", 106_005)];
const TYPES: [(&str, &str); 3] = [("DV_SSL_CERT", "dv"), ("OV_SSL_CERT", "ov"), ("EV_SSL_CERT", "ev")];
const DOMAIN_TYPES: [(&str, &str); 3] =
    [("SINGLE_DOMAIN", "single"), ("MULTI_DOMAIN", "multi"), ("WILDCARD", "wildcard")];

/// Returns the products on sale. No CA sells wildcards with EV.
fn products() -> Vec<Value> {
    let mut products = Vec::new();
    for (brand, number) in BRANDS {
        for (of_type, (cert_type, short_type)) in TYPES.into_iter().enumerate() {
            for (of_domain, (domain_type, short_domain)) in DOMAIN_TYPES.into_iter().enumerate() {
                if cert_type == "EV_SSL_CERT" && domain_type == "WILDCARD" {
                    continue;
                }
                products.push(json!({
                    "cert_type": cert_type,
                    "cert_brand": brand,
                    "domain_type": domain_type,
                    "product_id": format!("00301-{number}-{of_type}--{of_domain}"),
                    "effective_time": 1,
                    "product_name": format!("{}.{short_domain}.{short_type}.1", brand.to_lowercase()),
                }));
            }
        }
    }
    products
}

pub(super) fn list_product_types(_: &Input, _: &mut World<'_>) -> Outcome {
    Ok(json!({"type_list": products()}))
}

pub(super) fn show_product(input: &Input, _: &mut World<'_>) -> Outcome {
    let mut products = products().into_iter();
    let product = products.find(|product| product["product_id"] == input.text("product_id"));
    // No page says what an unknown product gets.
    let product = product.ok_or_else(|| Failure::parameter("product_id names no product"))?;
    let keys = ["cert_type", "cert_brand", "domain_type", "effective_time"];
    Ok(keys.into_iter().map(|key| (key.to_owned(), product[key].clone())).collect())
}

pub(super) fn subscribe_certificate(input: &Input, world: &mut World<'_>) -> Outcome {
    let product = product(input)?;
    let order = match input.text("order_id") {
        "" => format!("CS{}", world.new_number()),
        combined => combined.to_owned(),
    };
    let mut bought = Vec::new();
    for _ in 0..input.number("order_number").unwrap_or(1) {
        let id = world.new_id();
        let owner = &world.account.domain_id;
        let mut certificate = Certificate::paid(&id, owner, &order, product.clone(), world.now);
        for tag in input.list("tags") {
            let text = |key: &str| tag[key].as_str().unwrap_or_default().to_owned();
            certificate.tags.insert(text("key"), text("value"));
        }
        if !matches!(input.text("enterprise_project_id"), "" | "all") {
            input.text("enterprise_project_id").clone_into(&mut certificate.enterprise_project_id);
        }
        world.store.certificates.insert(id.clone(), certificate);
        bought.push(json!({"cert_id": id}));
    }
    Ok(json!({"order_id": order, "cert": bought}))
}

fn product(input: &Input) -> Result<Product, Failure> {
    let number = |key: &str| input.number(key).and_then(|number| u32::try_from(number).ok());
    let years = number("effective_time").filter(|years| *years <= 3);
    let years = years.ok_or_else(|| Failure::parameter("effective_time is out of range"))?;
    let domain_type = input.text("domain_type");
    // The page says up to 100, Terraform's provider up to 250.
    let possible = if domain_type == "MULTI_DOMAIN" { 2..=250 } else { 1..=1 };
    let domains = number("domain_numbers").filter(|domains| possible.contains(domains));
    let domains = domains.ok_or_else(|| Failure::parameter("domain_numbers is out of range"))?;
    if domain_type == "MULTI_DOMAIN" && input.text("primary_domain_type").is_empty() {
        return Err(Failure::missing("primary_domain_type"));
    }
    let wildcards = match domain_type {
        "WILDCARD" => 1,
        "MULTI_DOMAIN" => number("wildcard_domain_number").unwrap_or(0),
        _ => 0,
    };
    Ok(Product {
        brand: input.text("cert_brand").to_owned(),
        years,
        domains,
        wildcards,
        ..Product::new(input.text("cert_type"), domain_type)
    })
}

pub(super) fn unsubscribe_certificate(input: &Input, world: &mut World<'_>) -> Outcome {
    let id = input.text("cert_id");
    let (now, step) = (world.now, world.options.review_step);
    let certificate = world.certificate_for(id, Action::Unsubscribe)?;
    if now < certificate.paid_at + step {
        return Err(Failure::new(500, "SCM.0016", "The order is still being processed"));
    }
    world.remove(id);
    Ok(json!({"unsubscribe_results": "SUCCESS"}))
}
