//! Fuzzes the responses of the services that issue temporary credentials.

use secrecy::ExposeSecret as _;

use super::source::{ecs_agency, oidc, pod_identity, service};

/// Replaces each `$`: text of a response that no error may show.
const MARKER: &str = "p1anted";

/// Fuzzes a response as a token and as the credentials of each service: they are printable, and no error shows the response.
pub fn temporary_credentials(data: &[u8]) {
    let body: Vec<u8> = match str::from_utf8(data) {
        Ok(text) => text.replace('$', MARKER).into_bytes(),
        Err(_) => data.to_vec(),
    };
    let is_printable = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    match ecs_agency::token(&body) {
        Ok(token) => {
            assert!(is_printable(token.expose_secret()));
            assert_eq!(token.expose_secret().as_bytes(), body.trim_ascii_end());
        }
        Err(message) => assert!(!message.contains(MARKER), "{message}"),
    }
    for parsed in [
        service::parse::<oidc::Response<'_>>("STS", &body),
        service::parse::<pod_identity::Response<'_>>("the pod identity agent", &body),
        service::parse::<ecs_agency::Response<'_>>("the metadata service", &body),
    ] {
        match parsed {
            Ok(temporary) => {
                let credentials = &temporary.credentials;
                assert!(is_printable(&credentials.access_key) && is_printable(credentials.secret_key.expose_secret()));
                assert!(credentials.security_token.as_ref().is_some_and(|token| is_printable(token.expose_secret())));
                assert!(!format!("{temporary:?}").contains(MARKER));
            }
            Err(message) => assert!(!message.contains(MARKER), "{message}"),
        }
    }
}
