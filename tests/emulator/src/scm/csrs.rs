//! The CSR store.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::Outcome;
use super::certificates::page;
use super::failure::Failure;
use super::import::check_private_key;
use super::pki::{can_generate, generate_csr};
use super::store::{World, split};
use super::x509::CsrFacts;
use crate::api::Input;
use crate::time::milliseconds;

/// A CSR of the store. It has no `Debug`, because it holds a private key.
pub(crate) struct Csr {
    id: String,
    /// The domain id of its account.
    owner: String,
    name: String,
    domain_name: String,
    sans: String,
    algorithm: String,
    usage: String,
    /// Country, province, city and name.
    company: [String; 4],
    created: SystemTime,
    updated: SystemTime,
    /// The PEM of the CSR and, if it is known, of its key.
    files: Option<(String, Option<String>)>,
}

const COMPANY: [&str; 4] = ["company_country", "company_province", "company_city", "company_name"];

impl Csr {
    /// Returns a CSR as a seed has it.
    pub(crate) fn seeded(id: &str, owner: &str, domain: &str, now: SystemTime) -> Self {
        Self {
            id: id.to_owned(),
            owner: owner.to_owned(),
            name: format!("csr-{domain}"),
            domain_name: domain.to_owned(),
            sans: String::new(),
            algorithm: "RSA_2048".to_owned(),
            usage: "PERSONAL".to_owned(),
            company: Default::default(),
            created: now,
            updated: now,
            files: None,
        }
    }

    /// Returns the PEM texts, which are generated at their first use.
    fn files(&mut self) -> &(String, Option<String>) {
        let names: Vec<String> = std::iter::once(self.domain_name.clone()).chain(split(&self.sans)).collect();
        self.files.get_or_insert_with(|| {
            let (csr, key) = generate_csr(&names, &self.algorithm).expect("names and algorithm were checked");
            (csr, Some(key))
        })
    }

    /// Returns the CSR without its PEM text, as CreateCsr and UpdateCsr do.
    fn json(&self) -> Value {
        let mut json = json!({
            "id": self.id,
            "name": self.name,
            "domain_name": self.domain_name,
            "sans": self.sans,
            "private_key_algo": self.algorithm,
            "usage": self.usage,
            "create_time": milliseconds(self.created),
            "update_time": milliseconds(self.updated),
        });
        COMPANY.into_iter().zip(&self.company).for_each(|(key, value)| json[key] = value.as_str().into());
        json
    }

    fn json_with_pem(&mut self) -> Value {
        let mut json = self.json();
        json["csr"] = self.files().0.as_str().into();
        json
    }
}

/// Returns a CSR of the account.
fn csr<'a>(input: &Input, world: &'a mut World<'_>) -> Result<&'a mut Csr, Failure> {
    let owner = &world.account.domain_id;
    let found = world.store.csrs.get_mut(input.text("id")).filter(|csr| csr.owner == *owner);
    found.ok_or_else(Failure::no_csr)
}

/// Returns an id of 32 hex digits. Ids ascend.
fn new_id(world: &mut World<'_>) -> String {
    format!("{:032x}", u128::from(world.new_number()) << 64)
}

pub(super) fn create_csr(input: &Input, world: &mut World<'_>) -> Outcome {
    let company = COMPANY.map(|key| input.text(key).to_owned());
    let missing = company.iter().position(String::is_empty);
    if let (Some(index), "ENTERPRISE") = (missing, input.text("usage")) {
        return Err(Failure::missing(COMPANY[index]));
    }
    let algorithm = input.text("private_key_algo");
    if !can_generate(algorithm) {
        return Err(Failure::parameter("private_key_algo is not one of this CSR store"));
    }
    let domain_name = input.text("domain_name");
    let sans = input.text("sans");
    if domain_name.is_empty() || !domain_name.is_ascii() || !sans.is_ascii() {
        return Err(Failure::domains());
    }
    let id = new_id(world);
    let csr = Csr {
        name: input.text("name").to_owned(),
        sans: sans.to_owned(),
        algorithm: algorithm.to_owned(),
        usage: input.text("usage").to_owned(),
        company,
        ..Csr::seeded(&id, &world.account.domain_id, domain_name, world.now)
    };
    let answer = csr.json();
    world.store.csrs.insert(id, csr);
    Ok(answer)
}

pub(super) fn upload_csr(input: &Input, world: &mut World<'_>) -> Outcome {
    let pem = input.text("csr");
    let facts = CsrFacts::read(pem).ok_or_else(|| Failure::parameter("csr cannot be read"))?;
    let key = Some(input.text("private_key")).filter(|key| !key.is_empty());
    if let Some(key) = key {
        check_private_key(Some(&facts.key), key.trim_matches(['\r', '\n']))?;
    }
    let (domain, sans) = facts.names.split_first().ok_or_else(|| Failure::parameter("csr names no domain"))?;
    let id = new_id(world);
    let csr = Csr {
        name: input.text("name").to_owned(),
        sans: sans.join(","),
        algorithm: facts.key.algorithm_name().to_owned(),
        files: Some((pem.to_owned(), key.map(str::to_owned))),
        ..Csr::seeded(&id, &world.account.domain_id, domain, world.now)
    };
    let answer = json!({"id": id, "name": csr.name, "create_time": milliseconds(csr.created)});
    world.store.csrs.insert(id, csr);
    Ok(answer)
}

pub(super) fn list_csr(input: &Input, world: &mut World<'_>) -> Outcome {
    let (name, algorithm) = (input.text("name"), input.text("private_key_algo"));
    let is_listed = |csr: &&mut Csr| {
        csr.owner == world.account.domain_id
            && csr.name.contains(name)
            && (algorithm.is_empty() || csr.algorithm == algorithm)
    };
    let listed: Vec<_> = world.store.csrs.values_mut().filter(is_listed).collect();
    let total = listed.len();
    Ok(json!({"csr_list": page(input, listed.into_iter().map(Csr::json_with_pem)), "total": total}))
}

pub(super) fn show_csr(input: &Input, world: &mut World<'_>) -> Outcome {
    csr(input, world).map(Csr::json_with_pem)
}

pub(super) fn show_csr_private_key(input: &Input, world: &mut World<'_>) -> Outcome {
    let (_, key) = csr(input, world)?.files();
    Ok(json!({"private_key": key}))
}

pub(super) fn update_csr(input: &Input, world: &mut World<'_>) -> Outcome {
    let now = world.now;
    let csr = csr(input, world)?;
    input.text("name").clone_into(&mut csr.name);
    csr.updated = now;
    Ok(csr.json())
}

pub(super) fn delete_csr(input: &Input, world: &mut World<'_>) -> Outcome {
    let id = csr(input, world)?.id.clone();
    world.store.csrs.remove(&id);
    Ok(Value::Null)
}
