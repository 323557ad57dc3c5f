//! Reads the credentials of a project from files, or from the variables or the profile of the vendor's SDKs; names the
//! services that issue temporary ones.

use std::path::{Path, PathBuf};

use secrecy::ExposeSecret as _;

pub(super) mod jwt;
pub(super) mod oidc;
pub(super) mod pod_identity;
mod temporary;
pub(super) mod token;

pub use temporary::{Oidc, PodIdentity, TemporarySource};
pub(super) use token::Token;
pub use token::TokenFile;

use super::files::{self, Diagnostic, in_one_line};
use super::reader::Problem;
use super::secret::{Credentials, printable};
use super::{Environment, profile};

/// The source of a project's credentials.
#[derive(Debug, Clone)]
pub enum CredentialsSource {
    /// The vendor's variables. These credentials never change.
    Environment,
    /// One file for each part of the credentials.
    Files(CredentialFiles),
    /// The profile file of the vendor's SDKs.
    Profile(PathBuf),
    /// A service that issues temporary credentials. There are none before its first response.
    Temporary(TemporarySource),
}

impl CredentialsSource {
    /// Returns the name of the source on the status page.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::Files(_) => "files",
            Self::Profile(_) => "profile",
            Self::Temporary(source) => source.name(),
        }
    }
}

/// The files of a project's credentials. A path is `None` if it is missing or invalid.
#[derive(Debug, Clone)]
pub struct CredentialFiles {
    pub(super) access_key: Option<PathBuf>,
    pub(super) secret_key: Option<PathBuf>,
    pub(super) security_token: Option<PathBuf>,
}

impl CredentialFiles {
    /// Reads the credentials again.
    ///
    /// # Errors
    ///
    /// Fails with a message that names the files and never their content.
    pub fn read(&self) -> Result<Credentials, String> {
        read(self).map(|(credentials, _)| credentials).map_err(in_one_line)
    }
}

/// Reads the credentials in a profile again.
///
/// # Errors
///
/// Fails with a message that names the file and never its content.
pub fn read_profile(path: &Path) -> Result<Credentials, String> {
    profile::read(path).map(|profile| profile.credentials)
}

/// Reads all files of a project's credentials, even if the first is invalid.
///
/// Returns the credentials with warnings, or problems. A file that is not named is not a problem here.
pub(super) fn read(files: &CredentialFiles) -> Result<(Credentials, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut warnings = Vec::new();
    let mut problems = Vec::new();
    let mut part = |key: &'static str, path: Option<&Path>| {
        let secret = files::read_secret(path?, printable).map_err(|message| problems.push((key, message))).ok()?;
        warnings.extend(secret.warning.map(|message| (key, message)));
        Some(secret.text)
    };
    let access_key = part("ak_file", files.access_key.as_deref());
    let secret_key = part("sk_file", files.secret_key.as_deref());
    let security_token = part("security_token_file", files.security_token.as_deref());
    match (access_key, secret_key) {
        (Some(access_key), Some(secret_key)) if problems.is_empty() => {
            let access_key = access_key.expose_secret().to_owned();
            Ok((Credentials { access_key, secret_key, security_token }, warnings))
        }
        _ => Err(problems),
    }
}

const ACCESS_KEY: &str = "HUAWEICLOUD_SDK_AK";
const SECRET_KEY: &str = "HUAWEICLOUD_SDK_SK";
const SECURITY_TOKEN: &str = "HUAWEICLOUD_SDK_SECURITY_TOKEN";

/// The vendor's variables that hold credentials.
pub(super) const VARIABLES: [&str; 3] = [ACCESS_KEY, SECRET_KEY, SECURITY_TOKEN];

/// Returns whether one of the vendor's variables that hold credentials is set. One without the others is a mistake, and
/// does not make the gateway try other sources.
pub(super) fn is_in_environment(environment: &Environment) -> bool {
    [ACCESS_KEY, SECRET_KEY].iter().any(|name| environment.contains_key(*name))
        || environment.get(SECURITY_TOKEN).is_some_and(|token| !token.is_empty())
}

/// Reads the credentials from `HUAWEICLOUD_SDK_AK`, `_SK` and `_SECURITY_TOKEN`.
pub(super) fn from_environment(environment: &Environment) -> Result<Credentials, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut part = |name: &'static str, required: bool| {
        let value = match environment.get(name).map(String::as_str) {
            // Many deployments set an empty token for permanent credentials.
            None | Some("") if !required => return None,
            Some(value) => printable(value.as_bytes()),
            None => Err(format!("is not set; set it or {OTHER_SOURCES}")),
        };
        value.map_err(|message| problems.push(Problem::new(name, message))).ok()
    };
    let access_key = part(ACCESS_KEY, true);
    let secret_key = part(SECRET_KEY, true);
    let security_token = part(SECURITY_TOKEN, false);
    match (access_key, secret_key) {
        (Some(access_key), Some(secret_key)) if problems.is_empty() => {
            let access_key = access_key.expose_secret().to_owned();
            Ok(Credentials { access_key, secret_key, security_token })
        }
        _ => Err(problems),
    }
}

/// What can be set in place of the access key.
const OTHER_SOURCES: &str = "another source of credentials (HUAWEICLOUD_OIDC_*, the profile, HC_CONTAINER_* or \
                             upstream.metadata_endpoint), or list the projects and their files under [[projects]]";

/// Returns the message about a variable that is required if there are no `[[projects]]`.
pub(super) fn unset() -> String {
    "is not set; set it, or list the projects and their files under [[projects]]".to_owned()
}
