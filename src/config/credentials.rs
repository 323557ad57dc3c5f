//! Reads a project's key, from its files or from the variables of the vendor's SDKs.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::problems::Problem;
use super::{Environment, files, values};
use crate::secret::Credentials;

/// A key has dozens of characters, a security token some thousand.
const LARGEST_SECRET: u64 = 64 * 1024;

/// The files of one key, as far as the configuration names them well.
#[derive(Debug, Clone)]
pub struct KeyFiles {
    pub(super) access_key: Option<PathBuf>,
    pub(super) secret_key: Option<PathBuf>,
    pub(super) security_token: Option<PathBuf>,
}

impl KeyFiles {
    /// Reads the key again. A problem names the file at fault and never its content.
    ///
    /// # Errors
    ///
    /// What is wrong with the files: then the key read before stays good.
    pub fn read(&self) -> Result<Credentials, String> {
        let problem = |problems: Vec<Remark>| problems.into_iter().map(|(_, message)| message).collect::<Vec<_>>();
        read(self).map(|(credentials, _)| credentials).map_err(|problems| problem(problems).join("; "))
    }
}

/// Something to say about one of the files: the key that names it, and the message.
pub(super) type Remark = (&'static str, String);

/// Reads the files of one key, all of them even if the first is bad.
///
/// With the key come warnings; without it, problems, except about a file that is not named.
pub(super) fn read(files: &KeyFiles) -> Result<(Credentials, Vec<Remark>), Vec<Remark>> {
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

/// Reads the key from `HUAWEICLOUD_SDK_AK`, `_SK` and `_SECURITY_TOKEN`.
pub(super) fn from_environment(environment: &Environment) -> Result<Credentials, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut part = |name: &'static str, needed: bool| {
        let value = match environment.get(name) {
            Some(value) => printable(value.as_bytes()),
            None if needed => Err(unset()),
            None => return None,
        };
        value.map_err(|message| problems.push(Problem::new(name, message))).ok()
    };
    let access_key = part("HUAWEICLOUD_SDK_AK", true);
    let secret_key = part("HUAWEICLOUD_SDK_SK", true);
    let security_token = part("HUAWEICLOUD_SDK_SECURITY_TOKEN", false);
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
    let warning = content.readable_by_everyone.then(|| {
        let path = path.display();
        format!("{path} is readable by everyone on this machine; run `chmod o-r {path}`")
    });
    Ok(Secret { text, warning })
}

/// A secret without the line ends that editors and `echo` leave behind. Nothing else is forgiven: a blank in a key is
/// a slip that the vendor would answer with a puzzling 401.
fn printable(bytes: &[u8]) -> Result<SecretString, String> {
    let end = bytes.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n'));
    let bytes = end.map_or(&[][..], |end| &bytes[..=end]);
    if bytes.is_empty() {
        return Err("is empty".to_owned());
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err("is blank".to_owned());
    }
    match str::from_utf8(bytes) {
        Ok(text) if bytes.iter().all(u8::is_ascii_graphic) => Ok(SecretString::from(text)),
        _ => Err("must hold printable ASCII only, without blanks".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_line_ends_are_no_part_of_a_secret() {
        for bytes in [&b"key"[..], b"key\n", b"key\r\n", b"key\n\r\n\n"] {
            assert_eq!(printable(bytes).expect("a secret").expose_secret(), "key");
        }
    }

    #[test]
    fn empty_blank_and_unprintable_secrets_are_refused() {
        let printable_only = "must hold printable ASCII only, without blanks";
        let table: [(&[u8], &str); 9] = [
            (b"", "is empty"),
            (b"\r\n\n", "is empty"),
            (b" \t\n", "is blank"),
            (b" key", printable_only),
            (b"key ", printable_only),
            (b"one\ntwo", printable_only),
            (b"key\0", printable_only),
            ("schlüssel".as_bytes(), printable_only),
            (b"\xff\xfe", printable_only),
        ];
        for (bytes, message) in table {
            assert_eq!(printable(bytes).expect_err("no secret"), message, "{bytes:?}");
        }
    }
}
