//! The vendor's projects: `[[projects]]`, or the one project of the vendor's variables and profile.

mod sdk;

use std::collections::BTreeMap;

use super::Environment;
use super::credentials::{
    self, CredentialFiles, CredentialsSource, Oidc, PodIdentity, TemporarySource, Token, oidc, pod_identity,
};
use super::endpoint::{self, Endpoint, Site};
use super::files::report_each;
use super::reader::{Raw, Report, Section, values};
use super::secret::Credentials;
use super::sts::Sts;
use crate::clock::Clock;
use crate::validate::text::is_id;

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
    /// The token at startup, if a service exchanges it for the credentials.
    pub(super) token: Option<Token>,
}

impl Project {
    /// Describes the source of the credentials, and the token that is exchanged for them.
    fn source(&self) -> String {
        let Self { id, credentials_source: source, token, .. } = self;
        let service = match source {
            CredentialsSource::Temporary(source) => format!(" at {}", source.endpoint()),
            _ => String::new(),
        };
        let token = token.as_ref().map(|token| format!("; the token {}", token.description())).unwrap_or_default();
        format!("project {id} has credentials from {}{service}{token}", source.name())
    }
}

/// What the projects have in common.
pub(super) struct ProjectDefaults<'d> {
    /// The endpoint of projects without an own one.
    pub(super) site: Site,
    /// The metadata service, if credentials may come from the agency of the ECS.
    pub(super) agency: Option<Endpoint>,
    /// The endpoint of STS.
    pub(super) sts: Sts,
    /// The session name of projects without an own one.
    pub(super) session_name: &'d str,
    pub(super) clock: &'d Clock,
}

impl ProjectDefaults<'_> {
    /// Returns the defaults of a project that exchanges an OIDC token.
    fn of_oidc(&self, site: &Site, report: &mut Report) -> oidc::Defaults<'_> {
        let sts_endpoint = self.sts.endpoint(site.region, report);
        oidc::Defaults { sts_endpoint, session_name: self.session_name, clock: self.clock }
    }
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

    /// Returns whether one of the projects exchanges an OIDC token.
    pub(super) fn have_oidc(&self) -> bool {
        let is_oidc = |source: &_| matches!(source, CredentialsSource::Temporary(TemporarySource::Oidc(_)));
        self.iter().any(|project| is_oidc(&project.credentials_source))
    }

    /// Returns a line for each project that says where its credentials come from.
    pub(super) fn sources(&self) -> impl Iterator<Item = String> {
        self.iter().map(Project::source)
    }
}

/// An entry of the list: its id and the project, each `None` if invalid.
type Entry = (Option<String>, Option<Project>);

/// Reads the projects and the default project. Returns `None` after a problem, which is reported.
pub(super) fn read(
    root: &mut Section<'_>,
    defaults: &ProjectDefaults<'_>,
    environment: &Environment,
) -> Option<Projects> {
    let default = root.optional("default_project", values::text);
    let mut entries = root.list("projects", |section| entry(section, defaults))?;
    reject_duplicates(root, &entries);
    if entries.is_empty() {
        entries.push(sdk::read(root, defaults, environment));
    } else if defaults.agency.is_some() {
        warn_of_unused_agency(root, &entries);
    }
    share_sts(&mut entries);
    let default = default_id(root, default, &entries);
    let projects = entries.into_iter().map(|(_, project)| project);
    let by_id = projects.map(|project| project.map(|project| (project.id.clone(), project))).collect::<Option<_>>()?;
    Some(Projects { by_id, default: default? })
}

/// Lets projects of several regions whose tables are equal ask the same STS, which serves all regions: then they share
/// one exchange.
fn share_sts(entries: &mut [Entry]) {
    let mut seen: Vec<Oidc> = Vec::new();
    let sources = entries.iter_mut().filter_map(|(_, project)| Some(&mut project.as_mut()?.credentials_source));
    for source in sources {
        let CredentialsSource::Temporary(TemporarySource::Oidc(oidc)) = source else { continue };
        match seen.iter().find(|first| Oidc { sts_endpoint: first.sts_endpoint.clone(), ..oidc.clone() } == **first) {
            Some(first) => oidc.sts_endpoint = first.sts_endpoint.clone(),
            None => seen.push(oidc.clone()),
        }
    }
}

fn warn_of_unused_agency(root: &mut Section<'_>, entries: &[Entry]) {
    let uses_agency = |project: &Project| {
        matches!(project.credentials_source, CredentialsSource::Temporary(TemporarySource::EcsAgency(_)))
    };
    if !entries.iter().any(|(_, project)| project.as_ref().is_some_and(uses_agency)) {
        let message = "has no effect, because every project has another source of credentials";
        root.report().warning("upstream.metadata_endpoint", message);
    }
}

/// The credentials of a project and their source.
struct LoadedCredentials {
    source: CredentialsSource,
    credentials: Option<Credentials>,
    token: Option<Token>,
}

impl LoadedCredentials {
    fn stored(source: CredentialsSource, credentials: Credentials) -> Self {
        Self { source, credentials: Some(credentials), token: None }
    }

    fn temporary(source: TemporarySource, token: Option<Token>) -> Self {
        Self { source: CredentialsSource::Temporary(source), credentials: None, token }
    }

    fn oidc((oidc, token): (Oidc, Token)) -> Self {
        Self::temporary(TemporarySource::Oidc(oidc), Some(token))
    }

    fn pod_identity((pod, token): (PodIdentity, Token)) -> Self {
        Self::temporary(TemporarySource::PodIdentity(pod), Some(token))
    }

    fn ecs_agency(endpoint: &Endpoint) -> Self {
        Self::temporary(TemporarySource::EcsAgency(endpoint.clone()), None)
    }
}

fn entry(section: &mut Section<'_>, defaults: &ProjectDefaults<'_>) -> Entry {
    let id = section.required("id", "the project's id at the vendor", id);
    let domain_id = section.optional("domain_id", self::id);
    let site = endpoint::read(section).unwrap_or_else(|| defaults.site.clone());
    let loaded = load(section, &site, defaults);
    (id.clone(), project(id, domain_id, site, loaded))
}

fn project(
    id: Option<String>,
    domain_id: Option<String>,
    site: Site,
    loaded: Option<LoadedCredentials>,
) -> Option<Project> {
    let (id, LoadedCredentials { source, credentials, token }) = id.zip(loaded)?;
    Some(Project { id, domain_id, endpoint: site.endpoint, credentials_source: source, credentials, token })
}

const FILES: [&str; 3] = ["ak_file", "sk_file", "security_token_file"];

/// Reads the credentials of an entry from the one source that it has. Without a source they come from the agency, if it is
/// enabled.
fn load(section: &mut Section<'_>, site: &Site, defaults: &ProjectDefaults<'_>) -> Option<LoadedCredentials> {
    let [access_key, secret_key, security_token] = FILES.map(|key| section.optional(key, values::path));
    let files = CredentialFiles { access_key, secret_key, security_token };
    let oidc = section.optional_section("oidc", |section| {
        let defaults = defaults.of_oidc(site, section.report());
        oidc::table(section, defaults).map(LoadedCredentials::oidc)
    });
    let pod_identity = section.optional_section("pod_identity", |section| {
        pod_identity::table(section, defaults.clock).map(LoadedCredentials::pod_identity)
    });
    let file = FILES.into_iter().find(|key| section.origin(key).is_some());
    let tables = [("oidc", oidc), ("pod_identity", pod_identity)];
    let names = tables.iter().filter(|(_, table)| table.is_some()).map(|(name, _)| *name);
    let names: Vec<_> = file.into_iter().chain(names).collect();
    if let [first, others @ ..] = &names[..] {
        let message = format!("is set in addition to `{first}`; a project has one source of credentials");
        others.iter().for_each(|other| section.problem(other, &message));
    }
    let table = tables.into_iter().find_map(|(_, table)| table);
    match (table, file, &defaults.agency) {
        (Some(loaded), ..) => loaded,
        (None, None, Some(agency)) => Some(LoadedCredentials::ecs_agency(agency)),
        (None, ..) => from_files(section, files),
    }
}

fn from_files(section: &mut Section<'_>, files: CredentialFiles) -> Option<LoadedCredentials> {
    section.expect("ak_file", "the file with the access key id (AK)");
    section.expect("sk_file", "the file with the secret access key (SK)");
    let (credentials, warnings) = credentials::read(&files)
        .map_err(|problems| report_each(problems, |key, text| section.problem(key, text)))
        .ok()?;
    report_each(warnings, |key, text| section.warning(key, text));
    Some(LoadedCredentials::stored(CredentialsSource::Files(files), credentials))
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

fn checked_id(text: &str) -> Result<String, String> {
    if is_id(text) { Ok(text.to_owned()) } else { Err("expects 1 to 64 letters, digits, `_` and `-`".to_owned()) }
}
