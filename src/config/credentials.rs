//! Reads a project's key: from its files, or from the variables or the profile of the vendor's SDKs.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

use super::problems::Problem;
use super::{Environment, files, profile, values};
use crate::config::secret::{Credentials, printable};

/// A key has dozens of characters, a security token some thousand.
pub(super) const LARGEST_SECRET: u64 = 64 * 1024;

/// Where a project's key comes from.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// The vendor's variables: it stays as it is.
    Fixed,
    /// A file for each of its parts.
    Files(KeyFiles),
    /// The profile file of the vendor's SDKs.
    Profile(PathBuf),
    /// The agency of the ECS, asked at `[upstream] metadata_endpoint`: there is no key before it is asked.
    Agency,
}

impl KeySource {
    /// Whether the key is in files, which may change.
    pub fn is_in_files(&self) -> bool {
        matches!(self, Self::Files(_) | Self::Profile(_))
    }

    /// Reads the key again; `None` where it is in no file. A problem names the file at fault and never its content.
    ///
    /// # Errors
    ///
    /// What is wrong with the files: then the key read before stays good.
    pub fn read(&self) -> Result<Option<Credentials>, String> {
        match self {
            Self::Fixed | Self::Agency => Ok(None),
            Self::Files(files) => files.read().map(Some),
            Self::Profile(path) => profile::read(path).map(|profile| Some(profile.credentials)),
        }
    }
}

/// The files of one key, as far as the configuration names them well.
#[derive(Debug, Clone)]
pub struct KeyFiles {
    pub(super) access_key: Option<PathBuf>,
    pub(super) secret_key: Option<PathBuf>,
    pub(super) security_token: Option<PathBuf>,
}

impl KeyFiles {
    fn read(&self) -> Result<Credentials, String> {
        read(self).map(|(credentials, _)| credentials).map_err(in_one_line)
    }
}

/// Something to say about one of the files: the key that names it, and the message.
pub(super) type Diagnostic = (&'static str, String);

/// All messages, for who knows the files without their keys.
pub(super) fn in_one_line(remarks: Vec<Diagnostic>) -> String {
    remarks.into_iter().map(|(_, message)| message).collect::<Vec<_>>().join("; ")
}

/// Takes remarks one by one.
pub(super) fn note(remarks: Vec<Diagnostic>, mut noted: impl FnMut(&'static str, &str)) {
    remarks.iter().for_each(|(key, message)| noted(key, message));
}

/// Reads the files of one key, all of them even if the first is bad.
///
/// With the key come warnings; without it, problems, except about a file that is not named.
pub(super) fn read(files: &KeyFiles) -> Result<(Credentials, Vec<Diagnostic>), Vec<Diagnostic>> {
    let (mut warnings, mut problems) = (Vec::new(), Vec::new());
    let mut part = |key: &'static str, path: Option<&Path>| {
        let secret = secret(path?).map_err(|message| problems.push((key, message))).ok()?;
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

/// The vendor's variables that hold a key.
pub(super) const VARIABLES: [&str; 3] = [ACCESS_KEY, SECRET_KEY, SECURITY_TOKEN];

/// Whether the vendor's variables hold a key, or half of one: which is a slip, and no reason to look elsewhere.
pub(super) fn is_in_environment(environment: &Environment) -> bool {
    [ACCESS_KEY, SECRET_KEY].iter().any(|name| environment.contains_key(*name))
}

/// Reads the key from `HUAWEICLOUD_SDK_AK`, `_SK` and `_SECURITY_TOKEN`.
pub(super) fn from_environment(environment: &Environment) -> Result<Credentials, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut part = |name: &'static str, needed: bool| {
        let value = match environment.get(name).map(String::as_str) {
            // An empty token is how many set-ups say that there is none.
            None | Some("") if !needed => return None,
            Some(value) => printable(value.as_bytes()),
            None => Err(unset()),
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

/// The message about a variable that is needed because there are no `[[projects]]`.
pub(super) fn unset() -> String {
    "is not set; set it, or list the projects and their files under [[projects]]".to_owned()
}

struct Secret {
    text: SecretString,
    warning: Option<String>,
}

fn secret(path: &Path) -> Result<Secret, String> {
    let says = |message: String| format!("{} {message}", values::shown(path));
    let content = files::read(path, LARGEST_SECRET).map_err(says)?;
    let text = printable(&content.bytes).map_err(says)?;
    Ok(Secret { text, warning: warning(path, &content) })
}

/// The warning about a file with a secret, if it needs one.
pub(super) fn warning(path: &Path, content: &files::Content) -> Option<String> {
    let path = path.display();
    content.open_to_everyone.then(|| format!("{path} is open to everyone on this machine; run `chmod o-rw {path}`"))
}
