//! The vendor's projects: `[[projects]]`, or the one that the vendor's variables and profile tell of.

use std::{collections::BTreeMap, path::PathBuf};

use super::credentials::{self, KeyFiles, KeySource, note};
use super::problems::Problem;
use super::raw::Raw;
use super::reader::Section;
use super::{Endpoint, Environment, endpoint, profile, values};
use crate::config::secret::Credentials;
use crate::validate::text::is_id;

const PROJECT_ID: &str = "HUAWEICLOUD_SDK_PROJECT_ID";

/// One of the vendor's projects.
#[derive(Debug, Clone)]
pub struct Project {
    /// The vendor's id of it: 1 to 64 letters, digits, `_` and `-`.
    pub id: String,
    /// Where its calls go.
    pub endpoint: Endpoint,
    /// Where its key comes from.
    pub key_source: KeySource,
    /// The key, as it was read at the start; none yet from the agency.
    pub credentials: Option<Credentials>,
}

/// What `[upstream]` says for the projects.
pub(super) struct ProjectDefaults {
    /// Where calls of the projects go that name no endpoint.
    pub(super) endpoint: Endpoint,
    /// Whether the agency of the ECS may be asked for keys.
    pub(super) agency: bool,
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
pub(super) fn read(root: &mut Section<'_>, common: &ProjectDefaults, environment: &Environment) -> Option<Projects> {
    let default = root.optional("default_project", values::text);
    let mut entries = root.list("projects", |section| entry(section, common))?;
    refuse_duplicates(root, &entries);
    if entries.is_empty() {
        entries.push(from_sdk_env(root, common, environment));
    }
    let default = default_id(root, default, &entries);
    let projects = entries.into_iter().map(|(_, project)| project);
    let by_id = projects.map(|project| project.map(|project| (project.id.clone(), project))).collect::<Option<_>>()?;
    Some(Projects { by_id, default: default? })
}

/// A key, or where it will come from.
struct Key {
    source: KeySource,
    credentials: Option<Credentials>,
}

fn entry(section: &mut Section<'_>, common: &ProjectDefaults) -> Entry {
    let id = section.required("id", "the project's id at the vendor", id);
    let endpoint = endpoint::read(section).unwrap_or_else(|| common.endpoint.clone());
    let key = key(section, common.agency);
    (id.clone(), project(id, endpoint, key))
}

fn project(id: Option<String>, endpoint: Endpoint, key: Option<Key>) -> Option<Project> {
    let (id, Key { source, credentials }) = id.zip(key)?;
    Some(Project { id, endpoint, key_source: source, credentials })
}

/// Reads the key that an entry's files hold. Without files it is the agency's, if that may be asked.
fn key(section: &mut Section<'_>, agency: bool) -> Option<Key> {
    let files = KeyFiles {
        access_key: section.optional("ak_file", values::path),
        secret_key: section.optional("sk_file", values::path),
        security_token: section.optional("security_token_file", values::path),
    };
    let is_missing = |key: &&str| section.origin(key).is_none();
    if agency && ["ak_file", "sk_file", "security_token_file"].iter().all(is_missing) {
        return Some(Key { source: KeySource::Agency, credentials: None });
    }
    section.expect("ak_file", "the file with the access key id (AK)");
    section.expect("sk_file", "the file with the secret access key (SK)");
    let read = credentials::read(&files).map_err(|problems| note(problems, |key, text| section.problem(key, text)));
    let (credentials, warnings) = read.ok()?;
    note(warnings, |key, text| section.warning(key, text));
    Some(Key { source: KeySource::Files(files), credentials: Some(credentials) })
}

/// What the vendor's variables and profile tell.
struct Discovered {
    key: Key,
    /// The project that the profile names, and what a problem with it is to be called by.
    project: Option<(String, String)>,
}

/// The one project without `[[projects]]`. The variable that names it goes before the profile.
fn from_sdk_env(root: &mut Section<'_>, common: &ProjectDefaults, environment: &Environment) -> Entry {
    let found = find(root, common, environment);
    let id = match (environment.get(PROJECT_ID), &found) {
        (Some(id), _) => checked_id(id).map(Some).map_err(|message| Problem::new(PROJECT_ID, message)),
        (None, Ok(Discovered { project: Some((place, id)), .. })) => {
            checked_id(id).map(Some).map_err(|message| Problem::new(place, message))
        }
        (None, Ok(_)) => Err(Problem::new(PROJECT_ID, credentials::unset())),
        (None, Err(_)) => Ok(None), // what is wrong already may be what would name it
    };
    let (key, mut problems) = match found {
        Ok(found) => (Some(found.key), Vec::new()),
        Err(problems) => (None, problems),
    };
    let id = id.unwrap_or_else(|problem| {
        problems.push(problem);
        None
    });
    show(root, environment, key.as_ref(), id.as_deref());
    problems.into_iter().for_each(|problem| root.problem_at(problem));
    (id.clone(), project(id, common.endpoint.clone(), key))
}

/// Shows which key was found, and for which project.
fn show(root: &mut Section<'_>, environment: &Environment, key: Option<&Key>, id: Option<&str>) {
    match key.map(|key| &key.source) {
        Some(KeySource::Profile(path)) => root.setting_at("profile", &format!("{path:?}"), "the vendor's SDKs"),
        Some(KeySource::Fixed) => {
            for name in credentials::VARIABLES.iter().filter(|name| environment.contains_key(**name)) {
                root.setting_at(name, "[REDACTED]", "environment");
            }
        }
        Some(KeySource::Agency | KeySource::Files(_)) | None => {}
    }
    let source = if environment.contains_key(PROJECT_ID) { "environment" } else { "profile" };
    if let Some(id) = id {
        root.setting_at(PROJECT_ID, &format!("{id:?}"), source);
    }
}

/// Looks for a key as the vendor's SDKs do: in the variables, then in the profile, then, if it may be asked, at the
/// agency.
fn find(
    root: &mut Section<'_>,
    common: &ProjectDefaults,
    environment: &Environment,
) -> Result<Discovered, Vec<Problem>> {
    if !credentials::is_in_environment(environment) {
        if let Some((place, path)) = profile::path(environment) {
            return from_profile(root, &place, path).map_err(|problem| vec![problem]);
        }
        if common.agency {
            return Ok(Discovered { key: Key { source: KeySource::Agency, credentials: None }, project: None });
        }
    }
    let credentials = credentials::from_environment(environment).map_err(|mut problems| {
        let unset = !environment.contains_key(PROJECT_ID);
        problems.extend(unset.then(|| Problem::new(PROJECT_ID, credentials::unset())));
        problems
    })?;
    Ok(Discovered { key: Key { source: KeySource::Fixed, credentials: Some(credentials) }, project: None })
}

fn from_profile(root: &mut Section<'_>, place: &str, path: PathBuf) -> Result<Discovered, Problem> {
    let profile = profile::read(&path).map_err(|message| Problem::new(place, message))?;
    if let Some(warning) = &profile.warning {
        root.warning_at(place, warning);
    }
    let key = Key { source: KeySource::Profile(path), credentials: Some(profile.credentials) };
    let called = |id| (format!("{place}: `project_id`"), id);
    Ok(Discovered { key, project: profile.project_id.map(called) })
}

fn refuse_duplicates(root: &mut Section<'_>, entries: &[Entry]) {
    for (index, (id, _)) in entries.iter().enumerate() {
        let first = entries.iter().position(|(other, _)| other == id).filter(|first| id.is_some() && *first < index);
        if let Some(first) = first {
            let message = format!("is the id of projects[{first}] too");
            root.problem_at(Problem::new(format!("projects[{index}].id"), message));
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
    match is_id(text) {
        true => Ok(text.to_owned()),
        false => Err("expects 1 to 64 letters, digits, `_` and `-`".to_owned()),
    }
}
