//! Tokens: JWTs (RFC 7519) as Kubernetes projects them into a pod. No signature is made or verified, because the
//! emulator has no keys of an issuer.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

use super::issuer::random;
use super::pod_identity::POD_AUDIENCE;
use super::sts::{SAMPLE_AUDIENCE, SAMPLE_ISSUER, SAMPLE_SUBJECT};
use crate::time::seconds;

/// The last part of every token of the emulator, in place of a signature.
const SIGNATURE: &str = "EXAMPLEsignatureTHATverifiesNOTHING1";

/// The claims of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// `iss`: the URL of the cluster that issued the token.
    pub issuer: String,
    /// `aud`: the services that the token is for.
    pub audience: Vec<String>,
    /// `sub`: `system:serviceaccount:NAMESPACE:NAME`.
    pub subject: String,
    /// `nbf`: when the token becomes valid.
    pub not_before: Option<SystemTime>,
    /// `exp`: when the token expires.
    pub expires_at: SystemTime,
    /// `jti`: the id of the token.
    pub id: String,
}

impl Claims {
    /// Returns the claims that STS accepts by default, for an hour.
    #[must_use]
    pub fn oidc(now: SystemTime) -> Self {
        Self {
            issuer: SAMPLE_ISSUER.to_owned(),
            audience: vec![SAMPLE_AUDIENCE.to_owned()],
            subject: SAMPLE_SUBJECT.to_owned(),
            not_before: Some(now),
            expires_at: now + Duration::from_secs(3600),
            id: random(b"0123456789abcdef", 32),
        }
    }

    /// Returns the claims that the pod identity agent accepts by default, for an hour.
    #[must_use]
    pub fn pod_identity(now: SystemTime) -> Self {
        Self { audience: vec![POD_AUDIENCE.to_owned()], ..Self::oidc(now) }
    }

    /// Returns the token.
    #[must_use]
    pub fn encode(&self) -> String {
        let header = json!({"alg": "RS256", "kid": "made-up-key-1"});
        let mut payload = json!({
            "iss": self.issuer,
            "aud": self.audience,
            "sub": self.subject,
            "exp": seconds(self.expires_at),
            "jti": self.id,
        });
        if let Some(not_before) = self.not_before {
            payload["nbf"] = seconds(not_before).into();
            payload["iat"] = seconds(not_before).into();
        }
        let part = |value: &Value| BASE64.encode(value.to_string());
        format!("{}.{}.{SIGNATURE}", part(&header), part(&payload))
    }

    /// Decodes a token.
    pub(crate) fn decode(token: &str) -> Option<Self> {
        let parts: Vec<&str> = token.split('.').collect();
        let [header, payload, signature] = parts[..] else { return None };
        let object = |part: &str| {
            let bytes = BASE64.decode(part).ok()?;
            serde_json::from_slice::<Value>(&bytes).ok().filter(Value::is_object)
        };
        object(header)?;
        if signature.is_empty() || BASE64.decode(signature).is_err() {
            return None;
        }
        let payload = object(payload)?;
        let text = |key: &str| Some(payload[key].as_str()?.to_owned());
        let time = |key: &str| Some(UNIX_EPOCH + Duration::from_secs(payload[key].as_u64()?));
        let audience = match &payload["aud"] {
            Value::String(one) => vec![one.clone()],
            list => list.as_array()?.iter().map(|one| one.as_str().map(str::to_owned)).collect::<Option<_>>()?,
        };
        Some(Self {
            issuer: text("iss")?,
            audience,
            subject: text("sub")?,
            not_before: time("nbf"),
            expires_at: time("exp")?,
            id: text("jti").unwrap_or_default(),
        })
    }

    pub(crate) fn is_current(&self, now: SystemTime) -> bool {
        self.not_before.is_none_or(|start| start <= now) && now < self.expires_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_three_parts_of_base64_and_json_are_a_token() {
        let claims = Claims::oidc(UNIX_EPOCH + Duration::from_secs(1_660_017_906));
        let token = claims.encode();
        assert_eq!(Claims::decode(&token), Some(claims));
        let [header, payload, _] = token.split('.').collect::<Vec<_>>()[..] else { panic!("{token}") };
        for text in [
            String::new(),
            format!("{header}.{payload}"),
            format!("{header}.{payload}."),
            format!("{header}.{payload}.a.b"),
            format!("Bearer {token}"),
            format!("{header}.e30.c2lnbmF0dXJl"),
            format!("{header}.{header}.c2lnbmF0dXJl"),
            format!("{payload}=.{payload}.c2lnbmF0dXJl"),
        ] {
            assert_eq!(Claims::decode(&text), None, "{text}");
        }
    }
}
