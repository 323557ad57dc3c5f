//! STS, which exchanges an OIDC token for temporary credentials: `POST /v5/agencies/assume-with-oidc`.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::issuer::{Names, Rights, TimeFormat};
use super::token::Claims;
use super::{Entitled, Refusal, assumed_agency};
use crate::api::parse_json;
use crate::http::Request;
use crate::scm::{gateway_error, request_id};
use crate::script::Reply;

const PATH: &str = "/v5/agencies/assume-with-oidc";
const FIELDS: [&str; 7] =
    ["provider_urn", "agency_urn", "agency_session_name", "id_token", "duration_seconds", "policy", "policy_ids"];
const NAMES: Names = Names {
    object: "credentials",
    access_key: "access_key_id",
    secret_key: "secret_access_key",
    security_token: "security_token",
    expiration: "expiration",
};
/// The code of errors whose code the vendor does not document.
const UNDOCUMENTED: &str = "STS5.XXXX";

/// The `iss` of tokens that STS accepts by default.
pub(crate) const SAMPLE_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// The `aud` of tokens that STS accepts by default.
pub(crate) const SAMPLE_AUDIENCE: &str = "sts.made-up";
/// The `sub` of tokens that STS accepts by default.
pub(crate) const SAMPLE_SUBJECT: &str = "system:serviceaccount:scm:scm-gateway";

/// The content of STS. By default it has a provider and an agency, which trusts a service account of the provider.
#[derive(Debug, Clone)]
pub struct Sts {
    /// The OIDC providers in IAM.
    pub providers: Vec<Provider>,
    /// The trust agencies.
    pub agencies: Vec<Agency>,
}

impl Default for Sts {
    fn default() -> Self {
        Self { providers: vec![Provider::default()], agencies: vec![Agency::default()] }
    }
}

/// An OIDC provider in IAM.
#[derive(Debug, Clone)]
pub struct Provider {
    /// `iam::ACCOUNT:oidcProvider:NAME`.
    pub urn: String,
    /// The `iss` of its tokens.
    pub issuer: String,
    /// The client ids, one of which is in the `aud` of a token.
    pub client_ids: Vec<String>,
}

impl Default for Provider {
    fn default() -> Self {
        Self {
            urn: format!("iam::{}:oidcProvider:k8s-made-up", crate::SAMPLE_DOMAIN),
            issuer: SAMPLE_ISSUER.to_owned(),
            client_ids: vec![SAMPLE_AUDIENCE.to_owned()],
        }
    }
}

/// A trust agency. A statement of its trust policy allows the tokens of one provider.
#[derive(Debug, Clone)]
pub struct Agency {
    /// `iam::ACCOUNT:agency:NAME`.
    pub urn: String,
    /// The maximum validity of credentials.
    pub max_duration: Duration,
    /// `Principal.Federated`.
    pub provider_urn: String,
    /// The values of `oidc:aud`. Any audience of the provider if empty.
    pub audiences: Vec<String>,
    /// The values of `oidc:sub`, which `StringMatch` compares: `*` is any text.
    pub subjects: Vec<String>,
    /// What its credentials can access.
    pub rights: Rights,
}

impl Default for Agency {
    fn default() -> Self {
        Self {
            urn: format!("iam::{}:agency:scm-gateway", crate::SAMPLE_DOMAIN),
            max_duration: Duration::from_secs(43_200),
            provider_urn: Provider::default().urn,
            audiences: Vec::new(),
            subjects: vec![SAMPLE_SUBJECT.to_owned()],
            rights: Rights::default(),
        }
    }
}

impl Agency {
    fn trusts(&self, provider: &Provider, claims: &Claims) -> bool {
        let audience = self.audiences.is_empty() || claims.audience.iter().any(|one| self.audiences.contains(one));
        let subject = self.subjects.iter().any(|pattern| matches(pattern, &claims.subject));
        self.provider_urn == provider.urn && audience && subject
    }
}

/// The checked fields of a request.
struct Asked {
    provider_urn: String,
    agency_urn: String,
    session_name: String,
    token: String,
    duration: Duration,
}

impl Sts {
    /// Checks a request. A signature is ignored, because the operation needs none.
    pub(crate) fn check(&self, request: &Request, now: SystemTime) -> Result<Entitled, Refusal> {
        if request.target != PATH {
            return Err(Refusal::new("unknown path", gateway_error(404, "APIG.0101", "The API does not exist")));
        }
        if request.method != "POST" {
            let reply = gateway_error(405, "APIG.0101", "The method is not allowed").header("Allow", "POST");
            return Err(Refusal::new("the method is not POST", reply));
        }
        let asked = asked(request).map_err(|reason| refusal(400, UNDOCUMENTED, reason))?;
        let provider = self.providers.iter().find(|provider| provider.urn == asked.provider_urn);
        let provider = provider.ok_or_else(|| refusal(404, UNDOCUMENTED, "oidc provider not found"))?;
        let agency = self.agencies.iter().find(|agency| agency.urn == asked.agency_urn);
        let agency = agency.ok_or_else(|| refusal(404, UNDOCUMENTED, "agency not found"))?;
        let claims = Claims::decode(&asked.token);
        let claims = claims.ok_or_else(|| refusal(400, UNDOCUMENTED, "the id token is malformed"))?;
        if claims.issuer != provider.issuer {
            return Err(refusal(400, UNDOCUMENTED, "the issuer of the id token is not the provider's"));
        }
        if now >= claims.expires_at {
            return Err(refusal(400, UNDOCUMENTED, "the id token has expired"));
        }
        if !claims.is_current(now) {
            return Err(refusal(400, UNDOCUMENTED, "the id token is not yet valid"));
        }
        if claims.audience.iter().all(|audience| !provider.client_ids.contains(audience)) {
            return Err(refusal(400, "STS5.2001", "invalid audience"));
        }
        if !agency.trusts(provider, &claims) {
            let reason = "access denied: no identity-based policy allows sts:agencies:assumeWithOIDC";
            return Err(refusal(403, "STS5.1001", reason));
        }
        if asked.duration > agency.max_duration {
            return Err(refusal(400, UNDOCUMENTED, "duration_seconds exceeds the agency's"));
        }
        Ok(Entitled {
            rights: agency.rights.clone(),
            validity: asked.duration,
            names: &NAMES,
            format: TimeFormat::Utc(3),
            rest: rest(&asked, agency, provider, claims),
            renew_before: None,
        })
    }
}

fn rest(asked: &Asked, agency: &Agency, provider: &Provider, claims: Claims) -> Value {
    let audience = claims.audience.iter().find(|audience| provider.client_ids.contains(audience));
    json!({
        "assumed_agency": assumed_agency(&agency.urn, &asked.session_name),
        "audience": audience,
        "provider": provider.urn,
        "subject_from_id_token": claims.subject,
    })
}

fn refusal(status: u16, code: &str, reason: &'static str) -> Refusal {
    let id = request_id();
    let mut body = json!({"error_code": code, "error_msg": reason, "request_id": id});
    if status == 403 {
        body["encoded_authorization_message"] = "EXAMPLEencodedMESSAGE==".into();
    }
    Refusal::new(reason, Reply::json(status, &body.to_string()).header("X-Request-Id", id))
}

fn asked(request: &Request) -> Result<Asked, &'static str> {
    if !request.is_json() {
        return Err("the content type is not application/json");
    }
    let body = parse_json(&request.body).map_err(|_| "the body is not JSON, or has a key twice")?;
    let body = body.as_object().ok_or("the body is not an object")?;
    if body.keys().any(|key| !FIELDS.contains(&key.as_str())) {
        return Err("the body has an unknown key");
    }
    check_policy(body)?;
    let duration = match body.get("duration_seconds") {
        None => 3600,
        Some(value) => {
            let seconds = value.as_u64().filter(|seconds| (900..=43_200).contains(seconds));
            seconds.ok_or("invalid duration_seconds")?
        }
    };
    Ok(Asked {
        provider_urn: text(body, "provider_urn", is_provider_urn).ok_or("invalid provider_urn")?,
        agency_urn: text(body, "agency_urn", |urn| (1..=1500).contains(&urn.len())).ok_or("invalid agency_urn")?,
        session_name: text(body, "agency_session_name", is_session_name).ok_or("invalid agency_session_name")?,
        token: text(body, "id_token", |token| (4..=20_000).contains(&token.len())).ok_or("invalid id_token")?,
        duration: Duration::from_secs(duration),
    })
}

fn text(body: &Map<String, Value>, key: &str, is_valid: impl Fn(&str) -> bool) -> Option<String> {
    body.get(key)?.as_str().filter(|text| is_valid(text)).map(str::to_owned)
}

fn check_policy(body: &Map<String, Value>) -> Result<(), &'static str> {
    let is_object = |text: &str| parse_json(text.as_bytes()).is_ok_and(|policy| policy.is_object());
    let is_policy = |text: &str| (2..=4096).contains(&text.len()) && is_object(text);
    if body.get("policy").is_some_and(|policy| !policy.as_str().is_some_and(is_policy)) {
        return Err("invalid policy");
    }
    let is_id = |id: &str| (1..=64).contains(&id.len()) && id.bytes().all(|byte| is_word(byte) || byte == b'-');
    let are_ids = |ids: &Vec<Value>| ids.len() <= 20 && ids.iter().all(|id| id.as_str().is_some_and(is_id));
    if body.get("policy_ids").is_some_and(|ids| !ids.as_array().is_some_and(are_ids)) {
        return Err("invalid policy_ids");
    }
    Ok(())
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_session_name(name: &str) -> bool {
    (2..=128).contains(&name.len()) && name.bytes().all(|byte| is_word(byte) || b"+=,.@-".contains(&byte))
}

/// The pattern of the API: service, region, account, type and name.
fn is_provider_urn(urn: &str) -> bool {
    let is_part = |part: &str, extra: &[u8]| {
        part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=-_".contains(&byte) || extra.contains(&byte))
    };
    let [service, region, account, kind, name] = urn.splitn(5, ':').collect::<Vec<_>>()[..] else { return false };
    urn.len() <= 1500
        && !service.is_empty()
        && is_part(service, b"")
        && region.len() <= 255
        && is_part(region, b"*")
        && [account, kind].iter().all(|part| (1..=64).contains(&part.len()) && is_part(part, b""))
        && !name.is_empty()
        && !name.contains(['\n', '\r'])
}

/// Compares a text with a pattern in which `*` is any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|tail| {
            tail.char_indices().map(|(at, _)| at).chain([tail.len()]).any(|at| matches(rest, &tail[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn an_asterisk_of_a_trust_policy_is_any_text() {
        for (pattern, text, expected) in [
            ("a:b", "a:b", true),
            ("a:b", "a:bc", false),
            ("a:*", "a:", true),
            ("a:*:c", "a:b:c", true),
            ("*:c", "a:b:c", true),
            ("a:*:c", "a:b:d", false),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
