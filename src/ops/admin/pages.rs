//! The pages for operators: `/`, `/status` and `/config`. `admin.pages` switches them on and off.

use std::{net::IpAddr, sync::LazyLock};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::{
    HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS},
    uri::Authority,
};
use sha2::{Digest as _, Sha256};

use crate::ops::status::{Status, page};

/// Keeps pages of other origins from embedding a response. `http` has no constant for this name.
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Allows the style sheet of the status page and nothing else.
static CONTENT_POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = BASE64_STANDARD.encode(Sha256::digest(page::STYLE));
    let others = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    HeaderValue::try_from(format!("default-src 'none'; style-src 'sha256-{hash}'; {others}")).expect("ASCII")
});

/// What the pages show.
pub struct Pages {
    status: Box<dyn Fn() -> Status + Send + Sync>,
    config: String,
}

impl Pages {
    /// The paths of the pages.
    pub(super) const PATHS: &str = "/ /config /status";

    /// Creates the pages of a status and of a configuration.
    pub fn new(status: impl Fn() -> Status + Send + Sync + 'static, config: String) -> Self {
        Self { status: Box::new(status), config }
    }

    /// Returns the page of a request, or `None` if there is none at its path.
    pub(super) fn respond<B>(&self, request: &Request<B>) -> Option<Response<String>> {
        let page = |kind, body| Some(response(StatusCode::OK, kind, body));
        match request.uri().path() {
            "/" | "/config" | "/status" if !has_local_host(request) => {
                let text = "open this page at an IP address or localhost, for example through a port forward\n";
                Some(response(StatusCode::MISDIRECTED_REQUEST, "text/plain; charset=utf-8", text.to_owned()))
            }
            "/" => page("text/html; charset=utf-8", page::html(&(self.status)())),
            "/config" => page("text/plain; charset=utf-8", self.config.clone()),
            "/status" => page("application/json", (self.status)().json()),
            _ => None,
        }
    }
}

/// Returns whether a request names its server by IP address or as localhost.
///
/// A name in DNS may be that of an attacker, who lets it resolve to the gateway after a browser has loaded a script from it
/// (DNS rebinding). The browser then takes the gateway for the origin of the script.
fn has_local_host<B>(request: &Request<B>) -> bool {
    let in_header = || request.headers().get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let Some(authority) = request.uri().authority().cloned().or_else(in_header) else { return false };
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().extend([
        (CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (CONTENT_SECURITY_POLICY, CONTENT_POLICY.clone()),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("same-origin")),
    ]);
    response
}

#[cfg(test)]
mod tests {
    use http::{Request, header::HOST};

    use super::has_local_host;

    #[test]
    fn only_addresses_and_localhost_are_local_hosts() {
        for (host, expected) in [
            ("127.0.0.1:9464", true),
            ("10.1.2.3", true),
            ("[::1]:9464", true),
            ("localhost:9464", true),
            ("LOCALHOST", true),
            ("attacker.example", false),
            ("attacker.example:9464", false),
            ("localhost.attacker.example", false),
            ("127.0.0.1.attacker.example", false),
            ("127.0.0.1@attacker.example", false),
            ("gateway", false),
            ("", false),
            ("::1", false),
        ] {
            let request = Request::get("/status").header(HOST, host).body(()).unwrap();
            assert_eq!(has_local_host(&request), expected, "{host}");
        }
        assert!(!has_local_host(&Request::get("/status").body(()).unwrap()), "without a host");
        let absolute = Request::get("http://attacker.example/status").header(HOST, "127.0.0.1").body(()).unwrap();
        assert!(!has_local_host(&absolute), "the target overrides the header (RFC 9112 3.2.2)");
    }
}
