//! The pages for operators: the status, the configuration, and what explains them. `admin.pages` switches them on and off.

use std::sync::LazyLock;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::{
    HeaderValue, Request, Response,
    header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS},
};
use sha2::{Digest as _, Sha256};

use super::{CROSS_ORIGIN_RESOURCE_POLICY, local_host::has_local_host, misdirected};
use crate::ops::status::{Status, page};

/// Allows the style sheet of the status page and nothing else.
static CONTENT_POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = BASE64_STANDARD.encode(Sha256::digest(page::STYLE));
    let others = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    HeaderValue::try_from(format!("default-src 'none'; style-src 'sha256-{hash}'; {others}")).expect("ASCII")
});

/// The documents that the status page links to.
const STATUS_MD: &str = include_str!("../../../docs/status.md");
const RUNBOOK_MD: &str = include_str!("../../../docs/runbook.md");

/// What the pages show.
pub struct Pages {
    status: Box<dyn Fn() -> Status + Send + Sync>,
    config: String,
}

impl Pages {
    /// The paths of the pages.
    pub(super) const PATHS: [&str; 5] = ["/", "/config", "/docs/runbook.md", "/docs/status.md", "/status"];

    /// Creates the pages of a status and of a configuration.
    pub fn new(status: impl Fn() -> Status + Send + Sync + 'static, config: String) -> Self {
        Self { status: Box::new(status), config }
    }

    /// Returns the page of a request, or `None` if there is none at its path.
    pub(super) fn respond<B>(&self, request: &Request<B>) -> Option<Response<String>> {
        const TEXT: &str = "text/plain; charset=utf-8";
        let (kind, body) = match request.uri().path() {
            path if Self::PATHS.contains(&path) && !has_local_host(request) => return Some(misdirected()),
            "/" => ("text/html; charset=utf-8", page::html(&(self.status)())),
            "/config" => (TEXT, self.config.clone()),
            "/docs/runbook.md" => (TEXT, RUNBOOK_MD.to_owned()),
            "/docs/status.md" => (TEXT, STATUS_MD.to_owned()),
            "/status" => ("application/json", (self.status)().json()),
            _ => return None,
        };
        Some(response(kind, body))
    }
}

fn response(content_type: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
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
