//! The profile file of the vendor's SDKs: INI, and of it the section `[basic]` with a key and perhaps its project.
//!
//! What the vendor's readers take differently is refused, rather than guessed at: a key that comes twice, quotes, a
//! comment after a value. See "Profile" in the manual of huaweicloud-sdk-python-v3.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

use super::{Environment, credentials, files, values};
use crate::config::secret::{Credentials, printable};

/// The variable that names the file.
const FILE: &str = "HUAWEICLOUD_SDK_CREDENTIALS_FILE";

/// Where the file is without that variable, below the home directory.
const DEFAULT: &str = ".huaweicloud/credentials";

/// The section for services of a region; `[global]` is for those without.
const SECTION: &str = "basic";

/// What a profile says.
pub(super) struct Profile {
    pub(super) credentials: Credentials,
    pub(super) project_id: Option<String>,
    pub(super) warning: Option<String>,
}

/// The path of the profile, and what names it in messages. `None` without a file at the default place.
pub(super) fn path(environment: &Environment) -> Option<(String, PathBuf)> {
    if let Some(path) = environment.get(FILE) {
        return Some((FILE.to_owned(), PathBuf::from(path)));
    }
    let home = environment.get("HOME").filter(|home| !home.is_empty())?;
    let path = Path::new(home).join(DEFAULT);
    // A file that is there and cannot be read is a problem: another source would be another identity.
    let absent = path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound);
    (!absent).then(|| (format!("~/{DEFAULT}"), path))
}

/// Reads a profile. A problem names the file and what is wrong with it, and never its content.
pub(super) fn read(path: &Path) -> Result<Profile, String> {
    let says = |message: String| format!("{} {message}", values::shown(path));
    let content = files::read(path, credentials::LARGEST_SECRET).map_err(says)?;
    let text = str::from_utf8(&content.bytes).map_err(|_| says("is not UTF-8".to_owned()))?;
    let (credentials, project_id) = parse(text).map_err(|problem| says(format!("is no profile to use: {problem}")))?;
    Ok(Profile { credentials, project_id, warning: credentials::warning(path, &content) })
}

fn parse(text: &str) -> Result<(Credentials, Option<String>), String> {
    let entries = entries(text)?;
    let mut problems = Vec::new();
    let mut part = |key: &str| match secret(entries.get(key)?) {
        Ok(secret) => Some(secret),
        Err(message) => {
            problems.push(format!("`{key}` {message}"));
            None
        }
    };
    let (access_key, secret_key, security_token) = (part("ak"), part("sk"), part("security_token"));
    let missing = ["ak", "sk"].into_iter().filter(|key| !entries.contains_key(*key));
    problems.extend(missing.map(|key| format!("[{SECTION}] has no `{key}`")));
    match (access_key, secret_key) {
        (Some(access_key), Some(secret_key)) if problems.is_empty() => {
            let access_key = access_key.expose_secret().to_owned();
            let project_id = entries.get("project_id").map(|id| (*id).to_owned());
            Ok((Credentials { access_key, secret_key, security_token }, project_id))
        }
        _ => Err(problems.join(", ")),
    }
}

fn secret(value: &str) -> Result<SecretString, String> {
    match value.starts_with(['"', '\'']) {
        true => Err("is in quotes; write it without".to_owned()),
        false => printable(value.as_bytes()),
    }
}

/// What `[basic]` says. A key without a value is as good as none.
fn entries(text: &str) -> Result<BTreeMap<String, &str>, String> {
    let (mut entries, mut sections, mut inside) = (BTreeMap::new(), 0, false);
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        let twice = |what: &str| format!("line {number}: {what} stands here for the second time");
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            inside = name.trim() == SECTION;
            sections += u32::from(inside);
            if sections > 1 {
                return Err(twice("the section"));
            }
        } else if inside {
            let (key, value) = line.split_once(['=', ':']).ok_or(format!("line {number} is not `key = value`"))?;
            if entries.insert(key.trim_end().to_ascii_lowercase(), value.trim_start()).is_some() {
                return Err(twice("the key"));
            }
        }
    }
    entries.retain(|_, value| !value.is_empty());
    if sections == 0 { Err(format!("it has no section [{SECTION}]")) } else { Ok(entries) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKER: &str = "s3cr3t";

    fn read(text: &str) -> Result<(String, String, Option<String>, Option<String>), String> {
        let (key, project_id) = parse(text)?;
        let token = key.security_token.map(|token| token.expose_secret().to_owned());
        Ok((key.access_key, key.secret_key.expose_secret().to_owned(), token, project_id))
    }

    #[test]
    fn a_profile_is_read_however_it_is_laid_out() {
        let (whole, bare) = (Some("ST".to_owned()), None);
        let table = [
            ("[basic]\nak = AK\nsk = SK\n", None, bare.clone()),
            ("[basic]\r\nak = AK\r\nsk = SK\r\nsecurity_token = ST\r\nproject_id = p\r\n", Some("p"), whole.clone()),
            ("# key\n\n ; key\n [ basic ] \n\tAK=AK\n sk : SK\n#sk = other\n\n", None, bare.clone()),
            ("[global]\nak = other\n=\n[basic]\nsk = SK\nak = AK\n[x]\nak = other\nnonsense", None, bare.clone()),
            (
                "[basic]\nak=AK\nsk=SK\nsecurity_token =\nproject_id=\ndomain_id = d\niam_endpoint = https://i",
                None,
                bare,
            ),
        ];
        for (text, project, token) in table {
            let expected = ("AK".to_owned(), "SK".to_owned(), token, project.map(str::to_owned));
            assert_eq!(read(text), Ok(expected), "{text:?}");
        }
        let (_, secret, ..) = read("[basic]\nak = AK\nsk = a=b:c#d;e/+").unwrap();
        assert_eq!(secret, "a=b:c#d;e/+");
    }

    #[test]
    fn what_is_wrong_is_said_without_a_value() {
        let printable_only = "must hold printable ASCII only, without blanks";
        let table = [
            (String::new(), "it has no section [basic]".to_owned()),
            (format!("ak = {MARKER}\nsk = {MARKER}"), "it has no section [basic]".to_owned()),
            (format!("[global]\nak = {MARKER}\nsk = {MARKER}"), "it has no section [basic]".to_owned()),
            ("[basic]".to_owned(), "[basic] has no `ak`, [basic] has no `sk`".to_owned()),
            (format!("[basic]\nak =\nsk = {MARKER}"), "[basic] has no `ak`".to_owned()),
            (format!("[basic]\nak = {MARKER}\nidp_id = x"), "[basic] has no `sk`".to_owned()),
            (
                format!("[basic]\nak = {MARKER}\nak = {MARKER}"),
                "line 3: the key stands here for the second time".to_owned(),
            ),
            (
                format!("[basic]\nak = {MARKER}\n[a]\n[basic]"),
                "line 4: the section stands here for the second time".to_owned(),
            ),
            (format!("[basic]\n\n{MARKER}"), "line 3 is not `key = value`".to_owned()),
            (format!("[basic]\nak = A\nsk = {MARKER} # comment"), format!("`sk` {printable_only}")),
            (format!("[basic]\nak = {MARKER}\u{e9}\nsk = {MARKER}\u{7}"), {
                format!("`ak` {printable_only}, `sk` {printable_only}")
            }),
            (format!("[basic]\nak = A\nsk = \"{MARKER}\""), "`sk` is in quotes; write it without".to_owned()),
        ];
        for (text, message) in table {
            assert_eq!(read(&text), Err(message), "{text:?}");
        }
    }
}
