//! Resets requests that RFC 9113 calls malformed and h2 accepts. No other layer sees them.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use futures_util::future::{Either, MapErr, Ready, TryFutureExt as _, err};
use http::{HeaderMap, Method, Request, Uri, header};
use tower::{Layer, Service, layer::layer_fn};

/// A service for well-formed requests.
#[derive(Clone)]
pub(in crate::grpc) struct RejectMalformed<S>(S);

impl<S> RejectMalformed<S> {
    pub(in crate::grpc) fn layer() -> impl Layer<S, Service = Self> + Clone {
        layer_fn(Self)
    }
}

impl<S, B> Service<Request<B>> for RejectMalformed<S>
where
    S: Service<Request<B>, Error = Infallible>,
{
    type Response = S::Response;
    /// hyper resets the stream with the reason in this error.
    type Error = h2::Error;
    type Future = Either<MapErr<S::Future, fn(Infallible) -> h2::Error>, Ready<Result<S::Response, h2::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        self.0.poll_ready(cx).map_err(|never| match never {})
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if is_well_formed(request.method(), request.uri(), request.headers()) {
            Either::Left(self.0.call(request).map_err(|never| match never {}))
        } else {
            Either::Right(err(h2::Reason::PROTOCOL_ERROR.into()))
        }
    }
}

/// Checks that CONNECT has an authority (RFC 9113 8.5), `host` equals `:authority` (8.3.1), and no value begins or ends with
/// whitespace (8.2.1).
fn is_well_formed(method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
    let authority = uri.authority().map(|authority| without_default_port(authority.as_str().as_bytes()));
    let is_authority = |host: &[u8]| authority.is_none_or(|same| same.eq_ignore_ascii_case(without_default_port(host)));
    (method != Method::CONNECT || authority.is_some())
        && headers.get_all(header::HOST).iter().all(|host| is_authority(host.as_bytes()))
        && !headers.values().any(|value| is_padded(value.as_bytes()))
}

/// Removes a default port (RFC 3986 6.2.3). Behind a proxy that terminates TLS the scheme may be either, so both defaults
/// are removed.
fn without_default_port(authority: &[u8]) -> &[u8] {
    authority.strip_suffix(b":80").or_else(|| authority.strip_suffix(b":443")).unwrap_or(authority)
}

fn is_padded(value: &[u8]) -> bool {
    [value.first(), value.last()].into_iter().flatten().any(|byte| matches!(byte, b' ' | b'\t'))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue, Method};

    use super::is_well_formed;

    fn judged(method: Method, uri: &'static str, headers: &[(&'static str, &'static str)]) -> bool {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect::<HeaderMap>();
        is_well_formed(&method, &uri.parse().unwrap(), &headers)
    }

    #[test]
    fn host_equals_authority_in_any_spelling() {
        for (uri, host) in [
            ("http://scm.example/a", "scm.example"),
            ("http://scm.example/a", "SCM.Example:80"),
            ("https://scm.example:443/a", "scm.example"),
            ("http://[::1]:50051/a", "[::1]:50051"),
            ("/a", "any.example"),
        ] {
            assert!(judged(Method::POST, uri, &[("host", host)]), "{uri} {host}");
        }
        for (uri, host) in [("http://scm.example/a", "scm.example.org"), ("http://scm.example:1/a", "scm.example:2")] {
            assert!(!judged(Method::POST, uri, &[("host", host)]), "{uri} {host}");
        }
    }

    #[test]
    fn padded_values_are_malformed() {
        for value in ["", "a", "a b", "a\tb"] {
            assert!(judged(Method::POST, "/a", &[("x", value)]), "{value:?}");
        }
        for value in [" a", "a ", "\ta", "a\t", " "] {
            assert!(!judged(Method::POST, "/a", &[("x", value)]), "{value:?}");
        }
    }

    #[test]
    fn connect_needs_an_authority() {
        assert!(judged(Method::CONNECT, "scm.example:443", &[]));
        assert!(!judged(Method::CONNECT, "/", &[]));
    }
}
