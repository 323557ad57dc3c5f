//! The vendor's projects: `[[projects]]`, or the one of the vendor's variables.

use std::collections::BTreeMap;

use super::credentials::{self, KeyFiles};
use super::problems::Problem;
use super::reader::{Raw, Section};
use super::{Endpoint, Environment, endpoint, values};
use crate::secret::Credentials;

const PROJECT_ID: &str = "HUAWEICLOUD_SDK_PROJECT_ID";

/// One of the vendor's projects.
#[derive(Debug, Clone)]
pub struct Project {
    /// The vendor's id of it: 1 to 64 letters, digits, `_` and `-`.
    pub id: String,
    /// Where its calls go.
    pub endpoint: Endpoint,
    /// What signs its calls.
    pub credentials: Credentials,
    /// Where they were read from, if they can be read again.
    pub key_files: Option<KeyFiles>,
}

/// The projects that may be called, at least one.
#[derive(Debug, Clone)]
pub struct Projects {
    by_id: BTreeMap<String, Project>,
    default: String,
}

impl Projects {
    /// The project with this id.
    pub fn get(&self, id: &str) -> Option<&Project> {
        self.by_id.get(id)
    }

    /// The project meant by calls that name none.
    pub fn default_project(&self) -> &Project {
        self.get(&self.default).expect("the default is one of the projects, else there is no configuration")
    }

    /// All projects, ordered by id.
    pub fn iter(&self) -> impl Iterator<Item = &Project> {
        self.by_id.values()
    }
}

/// An entry read: its id and itself, as far as they are good.
type Entry = (Option<String>, Option<Project>);

/// Reads the projects and which of them is the default. `None` after a problem, which is noted.
pub(super) fn read(root: &mut Section<'_>, endpoint: &Endpoint, environment: &Environment) -> Option<Projects> {
    let default = root.optional("default_project", values::text);
    let mut entries = root.list("projects", |section| entry(section, endpoint))?;
    refuse_duplicates(root, &entries);
    if entries.is_empty() {
        entries.push(from_environment(root, endpoint, environment));
    }
    let default = default_id(root, default, &entries);
    let projects = entries.into_iter().map(|(_, project)| project);
    let by_id = projects.map(|project| project.map(|project| (project.id.clone(), project))).collect::<Option<_>>()?;
    Some(Projects { by_id, default: default? })
}

fn entry(section: &mut Section<'_>, default_endpoint: &Endpoint) -> Entry {
    let id = section.required("id", "the project's id at the vendor", id);
    let endpoint = endpoint::read(section).unwrap_or_else(|| default_endpoint.clone());
    let (files, credentials) = key(section);
    let project = id.clone().zip(credentials);
    let project = project.map(|(id, credentials)| Project { id, endpoint, credentials, key_files: Some(files) });
    (id, project)
}

/// Reads the key that an entry's files hold.
fn key(section: &mut Section<'_>) -> (KeyFiles, Option<Credentials>) {
    let files = KeyFiles {
        access_key: section.required("ak_file", "the file with the access key id (AK)", values::path),
        secret_key: section.required("sk_file", "the file with the secret access key (SK)", values::path),
        security_token: section.optional("security_token_file", values::path),
    };
    let credentials = match credentials::read(&files) {
        Ok((credentials, warnings)) => {
            for (key, message) in warnings {
                section.warning(key, &message);
            }
            Some(credentials)
        }
        Err(problems) => {
            for (key, message) in problems {
                section.problem(key, message);
            }
            None
        }
    };
    (files, credentials)
}

fn from_environment(root: &mut Section<'_>, endpoint: &Endpoint, environment: &Environment) -> Entry {
    let credentials = credentials::from_environment(environment);
    let credentials =
        credentials.map_err(|problems| problems.into_iter().for_each(|problem| root.problem_elsewhere(problem))).ok();
    let id = match environment.get(PROJECT_ID) {
        Some(value) => checked_id(value),
        None => Err(credentials::unset()),
    };
    let id = id.map_err(|message| root.problem_elsewhere(Problem::new(PROJECT_ID, message))).ok();
    let endpoint = endpoint.clone();
    let project =
        id.clone().zip(credentials).map(|(id, credentials)| Project { id, endpoint, credentials, key_files: None });
    (id, project)
}

fn refuse_duplicates(root: &mut Section<'_>, entries: &[Entry]) {
    for (index, (id, _)) in entries.iter().enumerate() {
        let first = entries.iter().position(|(other, _)| other == id).filter(|first| id.is_some() && *first < index);
        if let Some(first) = first {
            let message = format!("is the id of projects[{first}] too");
            root.problem_elsewhere(Problem::new(format!("projects[{index}].id"), message));
        }
    }
}

fn default_id(root: &mut Section<'_>, given: Option<String>, entries: &[Entry]) -> Option<String> {
    let mut ids = entries.iter().map(|(id, _)| id);
    match given {
        // While an id is missing or bad, it may be the one meant.
        Some(given) if ids.any(|id| id.as_ref().is_none_or(|id| *id == given)) => Some(given),
        Some(_) => {
            root.problem("default_project", "is none of the projects' ids");
            None
        }
        None if entries.len() == 1 => ids.next().cloned().flatten(),
        None => {
            if root.origin("default_project").is_none() {
                root.problem("default_project", "is missing; with more than one project it names one of their ids");
            }
            None
        }
    }
}

fn id(raw: &Raw) -> Result<String, String> {
    checked_id(raw.text("the project's id, as text")?)
}

fn checked_id(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    match (1..=64).contains(&text.len()) && text.bytes().all(plain) {
        true => Ok(text.to_owned()),
        false => Err("expects 1 to 64 letters, digits, `_` and `-`".to_owned()),
    }
}
