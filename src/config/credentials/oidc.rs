//! OIDC federation: `[projects.oidc]`, or the variables `HUAWEICLOUD_OIDC_*`.
//!
//! The limits are those of `AssumeAgencyWithOIDC` in the API reference of STS.

use std::time::Duration;

use serde_json::{Map, Value};

use super::temporary::Oidc;
use super::token::{self, Token, TokenFile};
use crate::clock::Clock;
use crate::config::endpoint::Endpoint;
use crate::config::reader::{Raw, Section, values};

/// The prefix of the vendor's variables.
pub(in crate::config) const VARIABLES: &str = "HUAWEICLOUD_OIDC_";

/// The bounds of the requested validity, in seconds, and its default.
const MIN_DURATION: u32 = 900;
const MAX_DURATION: u32 = 43_200;
const DEFAULT_DURATION: u32 = 3600;

/// The bounds of the other parameters, in bytes.
const MAX_URN: usize = 1500;
const MAX_SESSION_NAME: usize = 128;
const MAX_POLICY: usize = 4096;
const MAX_POLICY_IDS: usize = 20;
const MAX_POLICY_ID: usize = 64;

/// The session name if the name of the host does not fit.
const DEFAULT_SESSION_NAME: &str = "scm-gateway";

/// What the keys and the variables do not set.
pub(in crate::config) struct Defaults<'d> {
    pub(in crate::config) sts_endpoint: Option<Endpoint>,
    pub(in crate::config) session_name: &'d str,
    pub(in crate::config) clock: &'d Clock,
}

/// Reads `[projects.oidc]`. Returns `None` after a problem, which is reported.
pub(in crate::config) fn table(section: &mut Section<'_>, defaults: Defaults<'_>) -> Option<(Oidc, Token)> {
    let default = humantime::format_duration(seconds(DEFAULT_DURATION)).to_string();
    let duration = section.take("duration", &default, duration);
    read(section, duration, defaults)
}

/// Reads the vendor's variables. Returns `None` after a problem, which is reported.
pub(in crate::config) fn variables(section: &mut Section<'_>, defaults: Defaults<'_>) -> Option<(Oidc, Token)> {
    let bounds = MIN_DURATION..=MAX_DURATION;
    let duration = section.take("duration_seconds", &DEFAULT_DURATION.to_string(), values::integer(bounds));
    section.optional("id_token", |_| -> Result<(), _> {
        Err("cannot be renewed; unset it, and set HUAWEICLOUD_OIDC_TOKEN_FILE to the path of a file with the token"
            .to_owned())
    });
    let read = read(section, seconds(duration), defaults);
    section.reject_unknown(); // a misspelt policy would leave all rights of the agency
    read
}

/// Reads the keys that are also variables.
fn read(section: &mut Section<'_>, duration: Duration, defaults: Defaults<'_>) -> Option<(Oidc, Token)> {
    let Defaults { sts_endpoint, session_name, clock } = defaults;
    let provider_urn = section.required("provider_urn", "the URN of the OIDC provider in IAM", provider_urn);
    let agency_urn = section.required("agency_urn", "the URN of the trust agency", agency_urn);
    let token_file = section.required("token_file", "the file with the OIDC token", values::path);
    let token_file = token_file.map(TokenFile::of_oidc);
    let session_name = section.take("session_name", session_name, self::session_name);
    let policy = section.optional_redacted("policy", policy_shown, policy);
    let policy_ids = section.optional("policy_ids", policy_ids).unwrap_or_default();
    let token = token::inspect(section, "token_file", token_file.as_ref()?, clock);
    let oidc = Oidc {
        sts_endpoint: sts_endpoint?,
        provider_urn: provider_urn?,
        agency_urn: agency_urn?,
        token_file: token_file?,
        session_name,
        duration,
        policy,
        policy_ids,
    };
    Some((oidc, token?))
}

const fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds as u64)
}

fn duration(raw: &Raw) -> Result<Duration, String> {
    let duration = values::duration(seconds(MIN_DURATION)..=seconds(MAX_DURATION))(raw)?;
    if duration.subsec_nanos() > 0 { Err("expects whole seconds".to_owned()) } else { Ok(duration) }
}

fn provider_urn(raw: &Raw) -> Result<String, String> {
    const EXPECTS: &str = "a URN such as \"iam::ACCOUNT:oidcProvider:NAME\"";
    let is_part = |part: &str, more: &[u8]| {
        part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=-_".contains(&byte) || more.contains(&byte))
    };
    urn(raw, EXPECTS, |[service, region, account, kind, name]| {
        !service.is_empty()
            && [service, account, kind].iter().all(|part| is_part(part, b""))
            && (region.len() <= 255 && is_part(region, b"*"))
            && [account, kind].iter().all(|part| (1..=64).contains(&part.len()))
            && !name.is_empty()
    })
}

fn agency_urn(raw: &Raw) -> Result<String, String> {
    const EXPECTS: &str = "a URN such as \"iam::ACCOUNT:agency:NAME\"";
    urn(raw, EXPECTS, |[service, region, account, kind, name]| {
        let is_account = !account.is_empty() && account.bytes().all(is_word_or_hyphen);
        (service, region, kind) == ("iam", "", "agency") && is_account && !name.is_empty()
    })
}

/// Parses a URN of five parts, of which the last may contain colons.
fn urn(raw: &Raw, expects: &str, is_valid: impl FnOnce([&str; 5]) -> bool) -> Result<String, String> {
    let text = raw.text(expects)?;
    let parts: Vec<_> = text.splitn(5, ':').collect();
    let is_printable = text.len() <= MAX_URN && !text.chars().any(char::is_control) && text.trim() == text;
    match parts.try_into() {
        Ok(parts) if is_printable && is_valid(parts) => Ok(text.to_owned()),
        _ => Err(format!("expects {expects} of at most {MAX_URN} bytes")),
    }
}

fn session_name(raw: &Raw) -> Result<String, String> {
    let text = raw.text("a name, as text")?;
    let message = || format!("expects 2 to {MAX_SESSION_NAME} letters, digits, `_` and `+=,.@-`");
    if is_session_name(text) { Ok(text.to_owned()) } else { Err(message()) }
}

fn is_session_name(text: &str) -> bool {
    (2..=MAX_SESSION_NAME).contains(&text.len())
        && text.bytes().all(|byte| is_word_or_hyphen(byte) || b"+=,.@".contains(&byte))
}

/// Returns the default session name, which the vendor's audit log shows: the name of the host, if it is a valid one.
pub(in crate::config) fn default_session_name(host: &str) -> &str {
    if is_session_name(host) { host } else { DEFAULT_SESSION_NAME }
}

fn policy(raw: &Raw) -> Result<String, String> {
    let text = raw.text("a policy in JSON, as text")?;
    let is_object = serde_json::from_str::<Map<String, Value>>(text).is_ok();
    let message = || format!("expects an object in JSON of at most {MAX_POLICY} bytes");
    if is_object && text.len() <= MAX_POLICY { Ok(text.to_owned()) } else { Err(message()) }
}

/// Formats a policy for the settings: only its size, because it is long.
fn policy_shown(raw: &Raw) -> String {
    format!("[JSON, {} bytes]", raw.text("").map_or(0, str::len))
}

fn policy_ids(raw: &Raw) -> Result<Vec<String>, String> {
    let ids = values::texts(raw)?;
    // A template may have put nothing between the commas; without ids the credentials have all rights of the agency.
    let is_lost = ids.is_empty() && matches!(raw, Raw::Variable(_));
    let is_id = |id: &String| (1..=MAX_POLICY_ID).contains(&id.len()) && id.bytes().all(is_word_or_hyphen);
    let message =
        || format!("expects at most {MAX_POLICY_IDS} ids of 1 to {MAX_POLICY_ID} letters, digits, `_` and `-`");
    if !is_lost && ids.len() <= MAX_POLICY_IDS && ids.iter().all(is_id) { Ok(ids) } else { Err(message()) }
}

fn is_word_or_hyphen(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}
