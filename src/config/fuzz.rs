//! Fuzzes what an operator writes: the configuration, the vendor's profile, certificates and keys; and tokens.

use std::time::SystemTime;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use rustls::{crypto::aws_lc_rs::default_provider, sign::CertifiedKey};
use secrecy::ExposeSecret as _;
use toml::{Table, Value};

use super::{Environment, credentials::jwt, files, profile as vendor, tls};
use crate::clock::Clock;

/// A value that no message may show.
const MARKER: &str = "p1anted";

/// Keys whose value is a path, which messages show, and the variables of paths.
const PATHS: [&str; 3] = ["_file", "_FILE", "HOME"];

/// Fuzzes the configuration: a TOML file, and after a line `---` variables. Reading it again has the same result, and no
/// message shows a value.
pub fn configuration(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return }; // checked when the file is read
    if text.contains(MARKER) {
        return; // perhaps in the name of a key, which messages show
    }
    let (file, variables) = text.split_once("\n---\n").unwrap_or((text, ""));
    let table = match file.parse::<Table>() {
        Ok(table) => table,
        Err(error) => {
            let message = files::syntax_error(file, &error);
            let description = message.rsplit_once(": ").map_or(&*message, |(_, description)| description);
            let description = description.split(" (the line has a").next().unwrap_or_default();
            return assert!(["not valid TOML", "the key stands here for the second time"].contains(&description));
        }
    };
    let pairs = variables.lines().filter_map(|line| line.split_once('='));
    let environment: Environment = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let clock = Clock::from_fn(|| SystemTime::UNIX_EPOCH);
    let read = |table: &Table, environment: &Environment| super::read(table.clone(), environment, &clock, "host");
    match (read(&table, &environment), read(&table, &environment)) {
        (Ok(config), Ok(again)) => {
            assert_eq!((config.settings, config.warnings), (again.settings, again.warnings));
            assert!((1..=10).contains(&config.upstream.retry.attempts));
        }
        (first, again) => assert_eq!(first.err(), again.err()),
    }
    let mut planted = Value::Table(table);
    plant(&mut planted);
    let Value::Table(table) = planted else { unreachable!("a table") };
    let is_path = |name: &str| PATHS.iter().any(|end| name.ends_with(end));
    let plant = |(name, value): (String, String)| {
        let value = if is_path(&name) { value } else { value + MARKER };
        (name, value)
    };
    match read(&table, &environment.into_iter().map(plant).collect()) {
        Ok(config) => assert!(!config.warnings.iter().any(|warning| warning.contains(MARKER)), "{:?}", config.warnings),
        Err(problems) => assert!(!problems.to_string().contains(MARKER), "{problems}"),
    }
}

/// Appends the marker to every text except paths.
fn plant(value: &mut Value) {
    match value {
        Value::String(text) => text.push_str(MARKER),
        Value::Array(values) => values.iter_mut().for_each(plant),
        Value::Table(table) => {
            let texts = table.iter_mut().filter(|(key, _)| !PATHS.iter().any(|end| key.ends_with(end)));
            texts.for_each(|(_, value)| plant(value));
        }
        _ => {}
    }
}

/// Fuzzes the vendor's profile, in which each `$` is a secret: the secret is in no message, and accepted credentials are
/// printable and are parsed again from a minimal profile.
pub fn profile(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    match vendor::parse(&text.replace('$', MARKER)) {
        Err(message) => assert!(!message.contains(MARKER), "{message}"),
        Ok(parsed) => {
            let (credentials, project_id) = &parsed;
            let token = credentials.security_token.as_ref().map_or("", |token| token.expose_secret());
            let parts = [&credentials.access_key, credentials.secret_key.expose_secret(), token];
            assert!(parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_graphic())));
            let [ak, sk, token] = parts;
            let project_id = project_id.as_deref().unwrap_or_default();
            let minimal = format!("[basic]\nak={ak}\nsk={sk}\nsecurity_token={token}\nproject_id={project_id}");
            assert_eq!(vendor::parse(&minimal).expect("the minimal profile is valid"), parsed);
        }
    }
}

/// Fuzzes a certificate and its key in one text: every block of a certificate is read, or reported by its number, and a
/// key is accepted only with its certificate.
pub fn pem_pair(data: &[u8]) {
    let begin = b"-----BEGIN CERTIFICATE-----";
    let blocks = data.windows(begin.len()).filter(|window| window == begin).count();
    let certificates = files::certificates(data);
    match &certificates {
        // The parser also accepts a boundary with other text after its label.
        Ok(certificates) => assert!(certificates.len() >= blocks, "every block is read"),
        Err(message) => assert!(message.len() < 120),
    }
    assert!(files::roots(data).is_err() || certificates.is_ok());
    if let (Ok(chain), Ok(key)) = (certificates, files::private_key(data)) {
        let _ = chain.first().and_then(tls::expiry);
        if let Ok(pair) = CertifiedKey::from_der(chain, key, &default_provider()) {
            assert!(pair.keys_match().is_ok());
        }
    }
}

/// Fuzzes a token, and the payload of a token: a JWT is described in one short line, and every object is a payload.
pub fn claims(data: &[u8]) {
    const MAX: usize = 20_000;
    let describe = |token: &str| {
        let claims = jwt::parse(token)?;
        let line = claims.identity();
        assert!(line.len() < MAX && !line.chars().any(char::is_control), "{line:?}");
        Some(claims)
    };
    if let Ok(text) = str::from_utf8(data) {
        describe(text);
    }
    let is_object = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(data).is_ok();
    let claims = describe(&format!("e30.{}.", BASE64_URL_SAFE_NO_PAD.encode(data)));
    assert_eq!(claims.is_some(), is_object);
}
