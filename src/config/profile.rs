//! The profile file of the vendor's SDKs: an INI file whose section `[basic]` holds credentials and optionally a
//! project.
//!
//! Syntax that the vendor's SDKs interpret differently is rejected: duplicate keys, quotes, comments after a value. See
//! "Profile" in the manual of huaweicloud-sdk-python-v3.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

use super::reader::values;
use super::secret::{Credentials, printable};
use super::{Environment, files};

/// The variable with the path of the file.
pub(super) const FILE: &str = "HUAWEICLOUD_SDK_CREDENTIALS_FILE";

/// The default path of the file, relative to the home directory.
const DEFAULT: &str = ".huaweicloud/credentials";

/// The section for regional services; `[global]` is for global ones.
const SECTION: &str = "basic";

/// The keys that need each other.
const KEYS: [&str; 2] = ["ak", "sk"];

/// The content of a profile.
pub(super) struct Profile {
    pub(super) credentials: Credentials,
    pub(super) project_id: Option<String>,
    pub(super) warning: Option<String>,
}

/// Returns the path of the profile and its name in messages, or `None` without a file at the default path.
pub(super) fn path(environment: &Environment) -> Option<(String, PathBuf)> {
    if let Some(path) = environment.get(FILE) {
        return Some((FILE.to_owned(), PathBuf::from(path)));
    }
    let home = environment.get("HOME").filter(|home| !home.is_empty())?;
    let path = Path::new(home).join(DEFAULT);
    // An existing file that is unreadable is a problem, because the next source may hold another identity.
    let absent = path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound);
    (!absent).then(|| (format!("~/{DEFAULT}"), path))
}

/// Reads a profile. The error message names the file and the problem, and never the content.
pub(super) fn read(path: &Path) -> Result<Profile, String> {
    let with_path = |message: String| format!("{} {message}", values::shown(path));
    let content = files::read(path, files::MAX_SECRET).map_err(with_path)?;
    let text = str::from_utf8(&content.bytes).map_err(|_| with_path("is not UTF-8".to_owned()))?;
    let parsed = parse(text).map_err(|problem| with_path(format!("is not a usable profile: {problem}")));
    let (credentials, project_id) = parsed?;
    Ok(Profile { credentials, project_id, warning: files::permission_warning(path, &content) })
}

/// Returns what is missing in a profile that has an access key without a secret key, or the reverse. Any other profile is
/// of no interest to a gateway that does not use it.
pub(super) fn missing_key(path: &Path) -> Option<String> {
    let content = files::read(path, files::MAX_SECRET).ok()?;
    let entries = entries(str::from_utf8(&content.bytes).ok()?).ok()?;
    let missing: Vec<_> = KEYS.into_iter().filter(|key| !entries.contains_key(*key)).collect();
    let [missing] = missing[..] else { return None };
    Some(format!("{} is not a usable profile: [{SECTION}] has no `{missing}`", values::shown(path)))
}

/// Parses a profile. The error message never shows its content.
pub(super) fn parse(text: &str) -> Result<(Credentials, Option<String>), String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text); // editors on Windows write a byte order mark
    let entries = entries(text)?;
    let mut problems = Vec::new();
    let mut part = |key: &str| match secret(entries.get(key)?) {
        Ok(secret) => Some(secret),
        Err(message) => {
            problems.push(format!("`{key}` {message}"));
            None
        }
    };
    let access_key = part("ak");
    let secret_key = part("sk");
    let security_token = part("security_token");
    let missing = KEYS.into_iter().filter(|key| !entries.contains_key(*key));
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
    if value.starts_with(['"', '\'']) {
        return Err("is in quotes; write it without".to_owned());
    }
    printable(value.as_bytes())
}

/// Returns the entries of `[basic]`. A key without a value counts as missing.
fn entries(text: &str) -> Result<BTreeMap<String, &str>, String> {
    let mut entries = BTreeMap::new();
    let mut sections = 0;
    let mut in_section = false;
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        let duplicate = |item: &str| format!("line {number}: {item} stands here for the second time");
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            in_section = name.trim() == SECTION;
            sections += u32::from(in_section);
            if sections > 1 {
                return Err(duplicate("the section"));
            }
        } else if in_section {
            let (key, value) = line.split_once(['=', ':']).ok_or(format!("line {number} is not `key = value`"))?;
            if entries.insert(key.trim_end().to_ascii_lowercase(), value.trim_start()).is_some() {
                return Err(duplicate("the key"));
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
        let (credentials, project_id) = parse(text)?;
        let token = credentials.security_token.map(|token| token.expose_secret().to_owned());
        Ok((credentials.access_key, credentials.secret_key.expose_secret().to_owned(), token, project_id))
    }

    #[test]
    fn every_layout_of_a_profile_is_accepted() {
        let with_token = Some("ST".to_owned());
        let table = [
            ("[basic]\nak = AK\nsk = SK\n", None, None),
            ("\u{feff}[basic]\r\nak = AK\r\nsk = SK", None, None),
            ("[basic]\r\nak = AK\r\nsk = SK\r\nsecurity_token = ST\r\nproject_id = p\r\n", Some("p"), with_token),
            ("# key\n\n ; key\n [ basic ] \n\tAK=AK\n sk : SK\n#sk = other\n\n", None, None),
            ("[global]\nak = other\n=\n[basic]\nsk = SK\nak = AK\n[x]\nak = other\nnonsense", None, None),
            (
                "[basic]\nak=AK\nsk=SK\nsecurity_token =\nproject_id=\ndomain_id = d\niam_endpoint = https://i",
                None,
                None,
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
    fn problems_never_show_a_value() {
        let printable_only = "must hold printable ASCII only, without whitespace";
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
                format!("`ak` {printable_only}, `sk` {printable_only}; it has a control character")
            }),
            (format!("[basic]\nak = A\nsk = \"{MARKER}\""), "`sk` is in quotes; write it without".to_owned()),
        ];
        for (text, message) in table {
            assert_eq!(read(&text), Err(message), "{text:?}");
        }
    }
}
