//! The claims of a JSON Web Token (RFC 7519). Its signature is not checked: only the service that gets the token can.

use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, Engine as _, GeneralPurpose, GeneralPurposeConfig};
use jiff::Timestamp;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

/// Base64 for URLs. Padding is not allowed in a token, but does not matter here.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The most characters of a text, and the most audiences, that are shown.
const MAX_SHOWN: usize = 200;
const MAX_AUDIENCES: usize = 5;

/// The claims that the trust policy of an agency compares, and the validity. A claim of another type counts as missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct Claims {
    issuer: Option<String>,
    audiences: Vec<String>,
    subject: Option<String>,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) not_before: Option<Timestamp>,
}

/// Parses a signed token. Returns `None` if the text is not one.
pub(in crate::config) fn parse(token: &str) -> Option<Claims> {
    let mut parts = token.split('.');
    let [header, payload, _] = [parts.next()?, parts.next()?, parts.next()?];
    if parts.next().is_some() {
        return None;
    }
    object(header)?;
    let mut claims = object(payload)?;
    Some(Claims {
        issuer: claims.remove("iss").and_then(text),
        audiences: match claims.remove("aud") {
            Some(Value::Array(values)) => values.into_iter().filter_map(text).collect(),
            value => value.and_then(text).into_iter().collect(),
        },
        subject: claims.remove("sub").and_then(text),
        expires_at: claims.get("exp").and_then(time),
        not_before: claims.get("nbf").and_then(time),
    })
}

fn object(part: &str) -> Option<Map<String, Value>> {
    let json = Zeroizing::new(BASE64.decode(part).ok()?);
    serde_json::from_slice(&json).ok()
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

/// Returns a `NumericDate` in whole seconds.
fn time(value: &Value) -> Option<Timestamp> {
    let seconds = value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64))?;
    Timestamp::from_second(seconds).ok()
}

impl Claims {
    /// Describes the identity in one line: quoted, because the token is foreign data, and truncated.
    pub(in crate::config) fn identity(&self) -> String {
        let one = |text: &Option<String>| text.as_deref().map_or_else(|| "none".to_owned(), shown);
        let mut audiences: Vec<_> = self.audiences.iter().take(MAX_AUDIENCES).map(|text| shown(text)).collect();
        match self.audiences.len() {
            0 => audiences.push("none".to_owned()),
            count if count > MAX_AUDIENCES => audiences.push(format!("{} more", count - MAX_AUDIENCES)),
            _ => {}
        }
        format!("iss {}, aud {}, sub {}", one(&self.issuer), audiences.join(", "), one(&self.subject))
    }
}

fn shown(text: &str) -> String {
    let truncated: String = text.chars().take(MAX_SHOWN).collect();
    let end = if truncated.len() < text.len() { "…" } else { "" };
    format!("{truncated:?}{end}")
}

#[cfg(test)]
pub(in crate::config) mod tests {
    use base64::prelude::{BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD, Engine as _};

    use super::*;

    const SIGNATURE: &str = "c2lnbmF0dXJl";

    /// Returns a token with this payload.
    pub(in crate::config) fn token(payload: &str) -> String {
        let [header, payload] = [r#"{"alg":"RS256"}"#, payload].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
        format!("{header}.{payload}.{SIGNATURE}")
    }

    #[test]
    fn claims_are_read_tolerantly() {
        let table = [
            ("{}", "iss none, aud none, sub none", None),
            (
                r#"{"iss":"https://i","aud":"a","sub":"system:serviceaccount:scm:gw","exp":1700000000}"#,
                r#"iss "https://i", aud "a", sub "system:serviceaccount:scm:gw""#,
                Some(1_700_000_000),
            ),
            (r#"{"aud":["a","b",1],"exp":1700000000.9}"#, r#"iss none, aud "a", "b", sub none"#, Some(1_700_000_000)),
            (
                r#"{"aud":["1","2","3","4","5","6","7"]}"#,
                { r#"iss none, aud "1", "2", "3", "4", "5", 2 more, sub none"# },
                None,
            ),
            (r#"{"iss":1,"aud":{},"sub":null,"exp":"1700000000"}"#, "iss none, aud none, sub none", None),
            (r#"{"exp":1e300}"#, "iss none, aud none, sub none", None),
            (r#"{"exp":-1}"#, "iss none, aud none, sub none", Some(-1)),
            (r#"{"sub":"a\n\u001b[2J\u202e\"b"}"#, r#"iss none, aud none, sub "a\n\u{1b}[2J\u{202e}\"b""#, None),
        ];
        for (payload, identity, expires) in table {
            let claims = parse(&token(payload)).expect(payload);
            assert_eq!((&*claims.identity(), claims.expires_at.map(Timestamp::as_second)), (identity, expires));
        }
        let claims = parse(&token(&format!(r#"{{"sub":"{}"}}"#, "ü".repeat(500)))).expect("a token");
        assert_eq!(claims.identity(), format!("iss none, aud none, sub \"{}\"…", "ü".repeat(200)));
        let padded = BASE64_URL_SAFE.encode("{}");
        assert!(parse(&format!("{padded}.{padded}.s")).is_some(), "padding does not matter");
    }

    #[test]
    fn other_texts_are_no_tokens() {
        let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        for text in [
            String::new(),
            "a.b".to_owned(),
            "..".to_owned(),
            "glpat-x1y2".to_owned(),
            format!("{}.{}", encode("{}"), encode("{}")),
            format!("{}.{}.s.t", encode("{}"), encode("{}")),
            format!("{}.{}.a.b.c", encode("{}"), encode("{}")),
            format!("{}.{}.s", encode("{}"), encode("[]")),
            format!("{}.{}.s", encode("1"), encode("{}")),
            format!("{}.{}.s", encode("{}"), encode("{}{}")),
            format!("{}.{}.s", encode("{}"), encode(&"[".repeat(10_000))),
            format!("{}.{{}}.s", encode("{}")),
            format!("{}.{}==.s", encode("{}"), encode("{}")),
            token("{}").replace('.', " ."),
        ] {
            assert_eq!(parse(&text), None, "{text:?}");
        }
    }
}
