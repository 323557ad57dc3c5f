//! Pushes to other services, and the resources there that use a certificate.

use std::hash::{BuildHasher, RandomState};
use std::time::SystemTime;

use serde_json::{Value, json};

use super::Outcome;
use super::certificate::{Certificate, Deployment, Push};
use super::failure::Failure;
use super::life::Action;
use super::store::World;
use crate::api::Input;
use crate::time::milliseconds;

/// How many pushes a history has.
const HISTORY: usize = 10;

/// Returns a certificate that can be pushed. SCM does not know the private key of an own CSR.
fn deployable<'a>(world: &'a mut World<'_>, id: &str) -> Result<&'a mut Certificate, Failure> {
    let certificate = world.certificate_for(id, Action::Deploy)?;
    if certificate.has_own_csr() {
        return Err(Failure::new(400, "SCM.0030", "The certificate cannot be pushed to the service"));
    }
    Ok(certificate)
}

pub(super) fn push_certificate(input: &Input, world: &mut World<'_>) -> Outcome {
    let (project, service, now) = (input.text("target_project"), input.text("target_service"), world.now);
    let is_known = world.knows(project);
    let certificate = deployable(world, input.text("certificate_id"))?;
    push(certificate, project, service, is_known, now)?;
    Ok(Value::Null)
}

pub(super) fn batch_push_certificate(input: &Input, world: &mut World<'_>) -> Outcome {
    let (service, now) = (input.text("target_service"), world.now);
    let projects: Vec<(&str, bool)> =
        input.texts("target_projects").into_iter().map(|project| (project, world.knows(project))).collect();
    let certificate = deployable(world, input.text("certificate_id"))?;
    let result = |(project, is_known): (&str, bool)| {
        let (cert_id, message) = match push(certificate, project, service, is_known, now) {
            Ok(()) => (new_target_id(), "success".to_owned()),
            Err(failure) => (String::new(), failure.text),
        };
        json!({"project_name": project, "cert_id": cert_id, "message": message})
    };
    Ok(json!({"results": projects.into_iter().map(result).collect::<Vec<_>>()}))
}

/// Pushes a certificate. WAF and ELB need a project, and take a certificate several times.
fn push(
    certificate: &mut Certificate,
    project: &str,
    service: &str,
    is_known: bool,
    now: SystemTime,
) -> Result<(), Failure> {
    if !is_known || project.is_empty() && service != "CDN" {
        return Err(Failure::new(400, "SCM.0069", "The project was not found"));
    }
    if service == "CDN" && certificate.pushes.iter().any(|push| push.service == service) {
        return Err(Failure::new(400, "SCM.0211", "The push to CDN failed"));
    }
    certificate.pushes.push(Push { at: now, project: project.to_owned(), service: service.to_owned() });
    Ok(())
}

pub(super) fn list_push_history(input: &Input, world: &mut World<'_>) -> Outcome {
    let certificate = world.certificate(input.text("cert_id"))?;
    let row = |push: &Push| {
        json!({
            "push_time": milliseconds(push.at).to_string(),
            "push_remote_project": Some(&push.project).filter(|_| push.service != "CDN"),
            "push_service": push.service,
        })
    };
    let newest_first = certificate.pushes.iter().rev().take(HISTORY);
    Ok(json!({"push_history_list": newest_first.map(row).collect::<Vec<_>>()}))
}

pub(super) fn deploy_certificate(input: &Input, world: &mut World<'_>) -> Outcome {
    let (service, project) = (input.text("service_name"), input.text("project_name"));
    let is_cdn = service == "CDN";
    if !is_cdn && project.is_empty() {
        return Err(Failure::missing("project_name"));
    }
    let key = if is_cdn { "domain_name" } else { "id" };
    let mut resources = Vec::new();
    for (index, resource) in input.list("resources").iter().enumerate() {
        let text = |key: &str| resource[key].as_str().unwrap_or_default().to_owned();
        let id = text(key);
        if id.is_empty() {
            return Err(Failure::missing(&format!("resources[{index}].{key}")));
        }
        let is_known = world.knows(&id) && world.knows(project);
        resources.push((id, text("domain_name"), is_known));
    }
    let now = world.now;
    let certificate = deployable(world, input.text("certificate_id"))?;
    let mut failures = Vec::new();
    for (id, name, is_known) in resources {
        if !is_known {
            failures
                .push(json!({"resource": id, "failure_info": format!("{service}.0404:The resource was not found")}));
            continue;
        }
        let deployment = Deployment {
            service: service.to_owned(),
            region: if is_cdn { "global" } else { project }.to_owned(),
            resource_name: if name.is_empty() { id.clone() } else { name },
            resource_id: id,
        };
        certificate.deployments.retain(|present| *present != deployment);
        certificate.deployments.push(deployment);
    }
    certificate.updated = now;
    Ok(json!({"failure_list": failures}))
}

pub(super) fn list_deployed_resources(input: &Input, world: &mut World<'_>) -> Outcome {
    let services = input.texts("service_names");
    let wants = |service: &str| services.iter().any(|wanted| *wanted == "ALL" || *wanted == service);
    let mut results = Vec::new();
    for id in input.texts("certificate_ids") {
        let deployments = &world.certificate(id)?.deployments;
        let listed: Vec<_> = deployments.iter().filter(|deployment| wants(&deployment.service)).collect();
        let of_services = ["CDN", "ELB", "WAF"].into_iter().filter_map(|service| of_service(&listed, service));
        results.push(json!({
            "certificate_id": id,
            "total_num": listed.len(),
            "deployed_resources": of_services.collect::<Vec<_>>(),
        }));
    }
    Ok(json!({"results": results}))
}

/// Returns the resources of a service by region, or `None` if there are none.
fn of_service(all: &[&Deployment], service: &str) -> Option<Value> {
    let own: Vec<_> = all.iter().filter(|deployment| deployment.service == service).collect();
    let mut regions: Vec<&str> = own.iter().map(|deployment| deployment.region.as_str()).collect();
    regions.sort_unstable();
    regions.dedup();
    let resource = |deployment: &&&Deployment| json!({"resource_id": deployment.resource_id, "resource_name": deployment.resource_name});
    let region = |region: &&str| {
        let resources = own.iter().filter(|deployment| deployment.region == *region).map(resource);
        json!({"region_id": region, "is_error": false, "resources": resources.collect::<Vec<_>>()})
    };
    (!own.is_empty()).then(|| {
        json!({
            "service": service,
            "resource_num": own.len(),
            "resource_location": if service == "CDN" { "global" } else { "region" },
            "region_resources": regions.iter().map(region).collect::<Vec<_>>(),
        })
    })
}

/// Returns the id of a certificate in another service: 32 hex digits.
fn new_target_id() -> String {
    let half = || RandomState::new().hash_one("target");
    format!("{:016x}{:016x}", half(), half())
}
