//! Pod identity of CCE: `[projects.pod_identity]`, or the variables `HC_CONTAINER_*`.

use http::uri::PathAndQuery;

use super::temporary::PodIdentity;
use super::token::{self, Token, TokenFile};
use crate::clock::Clock;
use crate::config::Environment;
use crate::config::endpoint::{self, Endpoint};
use crate::config::reader::{Raw, Section, settings, values};

/// The prefix of the vendor's variables.
pub(in crate::config) const VARIABLES: &str = "HC_CONTAINER_";

const URI: &str = "credentials_full_uri";
const TOKEN_FILE: &str = "authorization_token_file";
const PLAIN_HTTP_HOST: &str = "plain_http_host";

/// The required keys, and what they are.
const KEYS: [(&str, &str); 2] =
    [(URI, "the URL of the pod identity agent"), (TOKEN_FILE, "the file with the token of the pod")];

/// Returns whether one of the vendor's variables is set.
pub(in crate::config) fn is_in_environment(environment: &Environment) -> bool {
    missing(environment).count() < KEYS.len()
}

/// Returns the vendor's variables that are not set, and what they are.
pub(in crate::config) fn missing(environment: &Environment) -> impl Iterator<Item = (String, &'static str)> {
    let variables = KEYS.map(|(key, meaning)| (format!("{VARIABLES}{}", key.to_ascii_uppercase()), meaning));
    variables.into_iter().filter(|(name, _)| environment.get(name).is_none_or(String::is_empty))
}

/// Reads `[projects.pod_identity]`. Returns `None` after a problem, which is reported.
pub(in crate::config) fn table(section: &mut Section<'_>, clock: &Clock) -> Option<(PodIdentity, Token)> {
    let plain_http_host = section.optional(PLAIN_HTTP_HOST, endpoint::host);
    let read = read(section, plain_http_host.as_deref(), clock);
    if let (Some(host), Some((pod, _))) = (plain_http_host, &read)
        && (pod.endpoint.https() || pod.endpoint.is_on_this_link() || **pod.endpoint.host() != *host)
    {
        section.warning(PLAIN_HTTP_HOST, &format!("is not needed for the host of `{URI}`"));
    }
    read
}

/// Reads the vendor's variables. Returns `None` after a problem, which is reported.
pub(in crate::config) fn variables(section: &mut Section<'_>, clock: &Clock) -> Option<(PodIdentity, Token)> {
    read(section, None, clock)
}

fn read(section: &mut Section<'_>, plain_http_host: Option<&str>, clock: &Clock) -> Option<(PodIdentity, Token)> {
    let [(uri, uri_meaning), (token_file, token_file_meaning)] = KEYS;
    let uri = section.optional_redacted(uri, uri_shown, |raw| full_uri(raw, plain_http_host));
    section.expect(URI, uri_meaning);
    let file = section.required(token_file, token_file_meaning, values::path).map(TokenFile::new);
    let token = token::inspect(section, token_file, file.as_ref()?, clock)?;
    let (endpoint, path) = uri?;
    Some((PodIdentity { endpoint, path, authorization_token_file: file? }, token))
}

/// Formats the URL for the settings, redacted if it may contain a secret.
fn uri_shown(raw: &Raw) -> String {
    let text = raw.text("a URL").unwrap_or_default();
    if text.contains('?') { "[REDACTED]".to_owned() } else { settings::shown_url(text) }
}

/// Parses the URL of the agent into its endpoint and its path with the query, which are sent as they are.
fn full_uri(raw: &Raw, plain_http_host: Option<&str>) -> Result<(Endpoint, String), String> {
    const EXPECTS: &str = "a URL such as \"http://127.0.0.1/v1/credentials\"";
    let text = raw.text(EXPECTS)?;
    let start = text.find("://").map_or(text.len(), |scheme| scheme + "://".len());
    let end = text[start..].find(['/', '?', '#', '\\']).map_or(text.len(), |path| start + path);
    let (endpoint, path) = text.split_at(end);
    let (user_info, endpoint) = endpoint::split(endpoint).map_err(|reason| format!("expects {EXPECTS}: {reason}"))?;
    if user_info.is_some() {
        return Err(format!("expects {EXPECTS}, without a user"));
    }
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let is_path = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
        && path.parse::<PathAndQuery>().is_ok_and(|parsed| parsed.as_str() == path);
    if !is_path {
        return Err(format!("expects {EXPECTS}, with a path and query in printable ASCII, without `#` and `\\`"));
    }
    if !endpoint.https() && !endpoint.is_on_this_link() && plain_http_host != Some(endpoint.host()) {
        return Err(
            "expects https://, or http:// and a loopback or link-local address; to allow http:// for one other \
                    host, name it as `plain_http_host` in [projects.pod_identity]"
                .to_owned(),
        );
    }
    Ok((endpoint, path))
}
