//! The only project if there are no `[[projects]]`: the variables and the profile of the vendor's SDKs.
//!
//! The first source that is set is used, and never another one, even if it fails.

use std::path::{Path, PathBuf};

use super::{Entry, LoadedCredentials, ProjectDefaults, checked_id, project};
use crate::config::credentials::{self, CredentialsSource, oidc, pod_identity};
use crate::config::endpoint::Endpoint;
use crate::config::reader::{Problem, Report, Section, copied};
use crate::config::{Environment, profile};

const PROJECT_ID: &str = "HUAWEICLOUD_SDK_PROJECT_ID";
const DOMAIN_ID: &str = "HUAWEICLOUD_SDK_DOMAIN_ID";

/// The federation of the old IAM, which the vendor's SDKs prefer to AK and SK.
const IDP_ID: &str = "HUAWEICLOUD_SDK_IDP_ID";

/// A source of credentials that is set.
enum Source {
    Oidc,
    Keys,
    Profile { name: String, path: PathBuf },
    PodIdentity,
    EcsAgency(Endpoint),
}

/// A project id in a profile, with its location for messages.
type ProfileId = (String, String);

/// Reads the project. The variable with its id overrides the profile.
pub(super) fn read(root: &mut Section<'_>, defaults: &ProjectDefaults<'_>, environment: &Environment) -> Entry {
    let sources = sources(environment, defaults);
    let (source, ignored) = sources.split_first().unwrap_or((&Source::Keys, &[])); // whose variables are then missing
    let (loaded, profile_id) = load(source, root, defaults, environment);
    report_ignored(root.report(), source, ignored, environment);
    report_old_federation(root.report(), environment, sources.is_empty());
    let report = root.report();
    let id = match (environment.get(PROJECT_ID), profile_id) {
        (Some(id), _) => reported(report, id_in_variable(PROJECT_ID, id)),
        (None, Some((location, id))) => {
            reported(report, checked_id(&id).map_err(|message| Problem::new(location, message)))
        }
        (None, None) if matches!(source, Source::Profile { .. }) && loaded.is_none() => None, // the profile with the problem may have the id
        (None, None) => reported(report, Err(Problem::new(PROJECT_ID, credentials::unset()))),
    };
    if let Some(id) = &id {
        let source = if environment.contains_key(PROJECT_ID) { "environment" } else { "profile" };
        report.setting(PROJECT_ID, &format!("{id:?}"), source);
    }
    let domain_id = domain_id(report, environment);
    (id.clone(), project(id, domain_id, defaults.site.clone(), loaded))
}

/// Returns the sources that are set, in the order of precedence. It is that of the vendor's SDK for Python, except that pod
/// identity precedes the agency, because a pod would otherwise get the rights of its node.
fn sources(environment: &Environment, defaults: &ProjectDefaults<'_>) -> Vec<Source> {
    let is_oidc = |(name, value): (&String, &String)| name.starts_with(oidc::VARIABLES) && !value.is_empty();
    let oidc = environment.iter().any(is_oidc).then_some(Source::Oidc);
    let keys = credentials::is_in_environment(environment).then_some(Source::Keys);
    let profile = profile::path(environment).map(|(name, path)| Source::Profile { name, path });
    let pod_identity = pod_identity::is_in_environment(environment).then_some(Source::PodIdentity);
    let agency = defaults.agency.clone().map(Source::EcsAgency);
    [oidc, keys, profile, pod_identity, agency].into_iter().flatten().collect()
}

impl Source {
    /// Returns the name in messages.
    fn location(&self) -> &str {
        match self {
            Self::Oidc => "HUAWEICLOUD_OIDC_*",
            Self::Keys => "HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK",
            Self::Profile { name, .. } => name,
            Self::PodIdentity => "HC_CONTAINER_*",
            Self::EcsAgency(_) => "upstream.metadata_endpoint",
        }
    }

    /// Returns what is missing or unusable in a source that is not used.
    fn problems(&self, environment: &Environment) -> Vec<Problem> {
        match self {
            Self::Keys => credentials::from_environment(environment).err().unwrap_or_default(),
            Self::Profile { name, path } if name == profile::FILE => {
                profile::read(path).err().into_iter().map(|message| Problem::new(name, message)).collect()
            }
            // Nobody has named this file to the gateway.
            Self::Profile { name, path } => {
                profile::missing_key(path).into_iter().map(|message| Problem::new(name, message)).collect()
            }
            Self::PodIdentity => {
                let missing = pod_identity::missing(environment);
                missing.map(|(name, meaning)| Problem::new(name, format!("is missing; it is {meaning}"))).collect()
            }
            Self::Oidc | Self::EcsAgency(_) => Vec::new(),
        }
    }
}

/// Reports the sources that are set and not used: an incomplete source is a mistake, because it may be meant to be used.
fn report_ignored(report: &mut Report, used: &Source, ignored: &[Source], environment: &Environment) {
    report.problems.extend(ignored.iter().flat_map(|source| source.problems(environment)));
    if !ignored.is_empty() {
        let names = ignored.iter().map(Source::location).collect::<Vec<_>>().join(", ");
        let message = format!("is the source of the credentials; other sources are set and ignored: {names}");
        report.warning(used.location(), &message);
    }
}

/// Reports the variables of the federation of the old IAM: as a problem, if no other source is set.
fn report_old_federation(report: &mut Report, environment: &Environment, is_only_source: bool) {
    if environment.get(IDP_ID).is_none_or(String::is_empty) {
        return;
    }
    let message = "is ignored, although the vendor's SDKs use it before AK and SK; the gateway knows OIDC by \
                   HUAWEICLOUD_OIDC_* instead";
    if is_only_source {
        report.problem(IDP_ID, message);
    } else {
        report.warning(IDP_ID, message);
    }
}

/// Reads the credentials from a source. Returns `None` after a problem, which is reported, and the project id of a profile.
fn load(
    source: &Source,
    root: &mut Section<'_>,
    defaults: &ProjectDefaults<'_>,
    environment: &Environment,
) -> (Option<LoadedCredentials>, Option<ProfileId>) {
    let loaded = match source {
        Source::Profile { name, path } => return from_profile(root.report(), name, path),
        Source::Oidc => root.vendor_variables(oidc::VARIABLES, environment, |section| {
            let defaults = defaults.of_oidc(&defaults.site, section.report());
            oidc::variables(section, defaults).map(LoadedCredentials::oidc)
        }),
        Source::Keys => from_keys(root.report(), environment),
        Source::PodIdentity => root.vendor_variables(pod_identity::VARIABLES, environment, |section| {
            pod_identity::variables(section, defaults.clock).map(LoadedCredentials::pod_identity)
        }),
        Source::EcsAgency(endpoint) => Some(LoadedCredentials::ecs_agency(endpoint)),
    };
    (loaded, None)
}

fn from_keys(report: &mut Report, environment: &Environment) -> Option<LoadedCredentials> {
    match credentials::from_environment(environment) {
        Ok(credentials) => {
            for name in credentials::VARIABLES.iter().filter(|name| environment.contains_key(**name)) {
                report.setting(name, "[REDACTED]", "environment");
            }
            Some(LoadedCredentials::stored(CredentialsSource::Environment, credentials))
        }
        Err(problems) => {
            report.problems.extend(problems);
            None
        }
    }
}

fn from_profile(report: &mut Report, name: &str, path: &Path) -> (Option<LoadedCredentials>, Option<ProfileId>) {
    let read = profile::read(path).map_err(|message| Problem::new(name, message));
    let Some(profile) = reported(report, read) else { return (None, None) };
    if let Some(warning) = &profile.warning {
        report.warning(name, warning);
    }
    report.setting("profile", &format!("{path:?}"), "the vendor's SDKs");
    let loaded = LoadedCredentials::stored(CredentialsSource::Profile(path.to_owned()), profile.credentials);
    (Some(loaded), profile.project_id.map(|id| (format!("{name}: `project_id`"), id)))
}

fn domain_id(report: &mut Report, environment: &Environment) -> Option<String> {
    let text = environment.get(DOMAIN_ID).filter(|text| !text.is_empty())?;
    let id = reported(report, id_in_variable(DOMAIN_ID, text))?;
    report.setting(DOMAIN_ID, &format!("{id:?}"), "environment");
    Some(id)
}

fn id_in_variable(name: &str, text: &str) -> Result<String, Problem> {
    checked_id(text).map_err(|message| Problem::new(name, message + &copied::hint(text)))
}

/// Returns the value. Reports a problem.
fn reported<T>(report: &mut Report, value: Result<T, Problem>) -> Option<T> {
    value.map_err(|problem| report.problems.push(problem)).ok()
}
