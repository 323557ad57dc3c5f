//! The vendor's projects: `[[projects]]`, or the one project of the vendor's variables and profile.

use std::{collections::BTreeMap, path::PathBuf};

use super::credentials::{self, CredentialFiles, CredentialsSource, TemporarySource};
use super::endpoint::{self, Endpoint};
use super::files::report_each;
use super::reader::{Problem, Raw, Report, Section, copied, values};
use super::secret::Credentials;
use super::{Environment, profile};
use crate::validate::text::is_id;

const PROJECT_ID: &str = "HUAWEICLOUD_SDK_PROJECT_ID";
const DOMAIN_ID: &str = "HUAWEICLOUD_SDK_DOMAIN_ID";

/// A project at the vendor.
#[derive(Debug, Clone)]
pub struct Project {
    /// The project's id: 1 to 64 letters, digits, `_` and `-`.
    pub id: String,
    /// The id of the account (domain) at the vendor, which calls of v3 send instead of the project's id; none by default.
    pub domain_id: Option<String>,
    /// The endpoint of SCM for this project.
    pub endpoint: Endpoint,
    /// The source of the credentials.
    pub credentials_source: CredentialsSource,
    /// The credentials at startup, or `None` if a service issues them.
    pub credentials: Option<Credentials>,
}

/// The settings of `[upstream]` for the projects.
pub(super) struct ProjectDefaults {
    /// The endpoint of projects without an own one.
    pub(super) endpoint: Endpoint,
    /// The metadata service, if credentials may come from the agency of the ECS.
    pub(super) agency: Option<Endpoint>,
}

/// The configured projects, at least one.
#[derive(Debug, Clone)]
pub struct Projects {
    by_id: BTreeMap<String, Project>,
    default: String,
}

impl Projects {
    /// Returns the project with this id.
    pub fn get(&self, id: &str) -> Option<&Project> {
        self.by_id.get(id)
    }

    /// Returns the project of calls without a project id.
    pub fn default_project(&self) -> &Project {
        self.get(&self.default).expect("`read` checks that the default is one of the projects")
    }

    /// Returns all projects, ordered by id.
    pub fn iter(&self) -> impl Iterator<Item = &Project> {
        self.by_id.values()
    }
}

/// An entry of the list: its id and the project, each `None` if invalid.
type Entry = (Option<String>, Option<Project>);

/// Reads the projects and the default project. Returns `None` after a problem, which is reported.
pub(super) fn read(root: &mut Section<'_>, defaults: &ProjectDefaults, environment: &Environment) -> Option<Projects> {
    let default = root.optional("default_project", values::text);
    let mut entries = root.list("projects", |section| entry(section, defaults))?;
    reject_duplicates(root, &entries);
    if entries.is_empty() {
        entries.push(from_sdk_env(root, defaults, environment));
    }
    let default = default_id(root, default, &entries);
    let projects = entries.into_iter().map(|(_, project)| project);
    let by_id = projects.map(|project| project.map(|project| (project.id.clone(), project))).collect::<Option<_>>()?;
    Some(Projects { by_id, default: default? })
}

/// The credentials of a project and their source.
struct LoadedCredentials {
    source: CredentialsSource,
    credentials: Option<Credentials>,
}

impl LoadedCredentials {
    fn temporary(source: TemporarySource) -> Self {
        Self { source: CredentialsSource::Temporary(source), credentials: None }
    }
}

fn entry(section: &mut Section<'_>, defaults: &ProjectDefaults) -> Entry {
    let id = section.required("id", "the project's id at the vendor", id);
    let domain_id = section.optional("domain_id", self::id);
    let endpoint = endpoint::read(section).unwrap_or_else(|| defaults.endpoint.clone());
    let loaded = load(section, defaults.agency.as_ref());
    (id.clone(), project(id, domain_id, endpoint, loaded))
}

fn project(
    id: Option<String>,
    domain_id: Option<String>,
    endpoint: Endpoint,
    loaded: Option<LoadedCredentials>,
) -> Option<Project> {
    let (id, LoadedCredentials { source, credentials }) = id.zip(loaded)?;
    Some(Project { id, domain_id, endpoint, credentials_source: source, credentials })
}

/// Reads the credentials from an entry's files. Without files they come from the agency, if it is enabled.
fn load(section: &mut Section<'_>, agency: Option<&Endpoint>) -> Option<LoadedCredentials> {
    let files = CredentialFiles {
        access_key: section.optional("ak_file", values::path),
        secret_key: section.optional("sk_file", values::path),
        security_token: section.optional("security_token_file", values::path),
    };
    let is_missing = |key: &&str| section.origin(key).is_none();
    if let Some(agency) = agency
        && ["ak_file", "sk_file", "security_token_file"].iter().all(is_missing)
    {
        return Some(LoadedCredentials::temporary(TemporarySource::EcsAgency(agency.clone())));
    }
    section.expect("ak_file", "the file with the access key id (AK)");
    section.expect("sk_file", "the file with the secret access key (SK)");
    let (credentials, warnings) = credentials::read(&files)
        .map_err(|problems| report_each(problems, |key, text| section.problem(key, text)))
        .ok()?;
    report_each(warnings, |key, text| section.warning(key, text));
    Some(LoadedCredentials { source: CredentialsSource::Files(files), credentials: Some(credentials) })
}

/// The credentials and project in the vendor's variables and profile.
struct Discovered {
    loaded: LoadedCredentials,
    /// The project id of the profile, with its location for messages.
    project: Option<(String, String)>,
}

/// Reads the only project if there are no `[[projects]]`. The variable with its id overrides the profile.
fn from_sdk_env(root: &mut Section<'_>, defaults: &ProjectDefaults, environment: &Environment) -> Entry {
    let found = find(root, defaults, environment);
    let id = match (environment.get(PROJECT_ID), &found) {
        (Some(id), _) => id_in_variable(PROJECT_ID, id).map(Some),
        (None, Ok(Discovered { project: Some((location, id)), .. })) => {
            checked_id(id).map(Some).map_err(|message| Problem::new(location, message))
        }
        (None, Ok(_)) => Err(Problem::new(PROJECT_ID, credentials::unset())),
        (None, Err(_)) => Ok(None), // the profile with the problem may contain the id
    };
    let (loaded, mut problems) = match found {
        Ok(found) => (Some(found.loaded), Vec::new()),
        Err(problems) => (None, problems),
    };
    let id = id.unwrap_or_else(|problem| {
        problems.push(problem);
        None
    });
    report_settings(root.report(), environment, loaded.as_ref(), id.as_deref());
    let domain_id = domain_id(root.report(), environment);
    root.report().problems.extend(problems);
    (id.clone(), project(id, domain_id, defaults.endpoint.clone(), loaded))
}

fn domain_id(report: &mut Report, environment: &Environment) -> Option<String> {
    let text = environment.get(DOMAIN_ID).filter(|text| !text.is_empty())?;
    match id_in_variable(DOMAIN_ID, text) {
        Ok(id) => {
            report.setting(DOMAIN_ID, &format!("{id:?}"), "environment");
            Some(id)
        }
        Err(problem) => {
            report.problems.push(problem);
            None
        }
    }
}

/// Reports the source of the credentials, and the project id.
fn report_settings(
    report: &mut Report,
    environment: &Environment,
    loaded: Option<&LoadedCredentials>,
    id: Option<&str>,
) {
    match loaded.map(|loaded| &loaded.source) {
        Some(CredentialsSource::Profile(path)) => report.setting("profile", &format!("{path:?}"), "the vendor's SDKs"),
        Some(CredentialsSource::Environment) => {
            for name in credentials::VARIABLES.iter().filter(|name| environment.contains_key(**name)) {
                report.setting(name, "[REDACTED]", "environment");
            }
        }
        Some(CredentialsSource::Temporary(_) | CredentialsSource::Files(_)) | None => {}
    }
    let source = if environment.contains_key(PROJECT_ID) { "environment" } else { "profile" };
    if let Some(id) = id {
        report.setting(PROJECT_ID, &format!("{id:?}"), source);
    }
}

/// Finds credentials like the vendor's SDKs: in the variables, then in the profile, then from the agency if it is
/// enabled.
fn find(
    root: &mut Section<'_>,
    defaults: &ProjectDefaults,
    environment: &Environment,
) -> Result<Discovered, Vec<Problem>> {
    if !credentials::is_in_environment(environment) {
        if let Some((name, path)) = profile::path(environment) {
            return from_profile(root, &name, path).map_err(|problem| vec![problem]);
        }
        if let Some(agency) = &defaults.agency {
            let source = TemporarySource::EcsAgency(agency.clone());
            return Ok(Discovered { loaded: LoadedCredentials::temporary(source), project: None });
        }
    }
    let credentials = credentials::from_environment(environment).map_err(|mut problems| {
        let unset = !environment.contains_key(PROJECT_ID);
        problems.extend(unset.then(|| Problem::new(PROJECT_ID, credentials::unset())));
        problems
    })?;
    Ok(Discovered {
        loaded: LoadedCredentials { source: CredentialsSource::Environment, credentials: Some(credentials) },
        project: None,
    })
}

fn from_profile(root: &mut Section<'_>, name: &str, path: PathBuf) -> Result<Discovered, Problem> {
    let profile = profile::read(&path).map_err(|message| Problem::new(name, message))?;
    if let Some(warning) = &profile.warning {
        root.report().warning(name, warning);
    }
    let loaded = LoadedCredentials { source: CredentialsSource::Profile(path), credentials: Some(profile.credentials) };
    let project = profile.project_id.map(|id| (format!("{name}: `project_id`"), id));
    Ok(Discovered { loaded, project })
}

fn reject_duplicates(root: &mut Section<'_>, entries: &[Entry]) {
    for (index, (id, _)) in entries.iter().enumerate() {
        let first = entries.iter().position(|(other, _)| other == id).filter(|first| id.is_some() && *first < index);
        if let Some(first) = first {
            let message = format!("is the id of projects[{first}] too");
            root.report().problem(format!("projects[{index}].id"), message);
        }
    }
}

fn default_id(root: &mut Section<'_>, default: Option<String>, entries: &[Entry]) -> Option<String> {
    let mut ids = entries.iter().map(|(id, _)| id);
    match default {
        // A missing or invalid id could be the default.
        Some(default) if ids.any(|id| id.as_ref().is_none_or(|id| *id == default)) => Some(default),
        Some(_) => {
            root.problem("default_project", "is not the id of a listed project");
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
    checked_id(raw.text("an id at the vendor, as text")?)
}

fn id_in_variable(name: &str, text: &str) -> Result<String, Problem> {
    checked_id(text).map_err(|message| Problem::new(name, message + &copied::hint(text)))
}

fn checked_id(text: &str) -> Result<String, String> {
    if is_id(text) { Ok(text.to_owned()) } else { Err("expects 1 to 64 letters, digits, `_` and `-`".to_owned()) }
}
