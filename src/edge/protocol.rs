//! Refuses in HTTP what is no gRPC call: another method than POST, another content type. Bodies are watched from here
//! on, for a second message.

use std::{convert::Infallible, task};

use futures_util::future::{Either, Ready, ready};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use tonic::body::Body;
use tower::Service;

use super::{GRPC_OWN, one_message::OneMessage};

#[derive(Clone)]
pub(super) struct Protocol<S>(S);

impl<S> Protocol<S> {
    pub(super) fn new(inner: S) -> Self {
        Self(inner)
    }
}

impl<S, B> Service<Request<B>> for Protocol<S>
where
    S: Service<Request<OneMessage<B>>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let refused = if request.method() != Method::POST {
            (StatusCode::METHOD_NOT_ALLOWED, Some((header::ALLOW, HeaderValue::from_static("POST"))))
        } else if !is_grpc(request.headers()) {
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, None)
        } else {
            let is_stream = request.uri().path().starts_with(GRPC_OWN); // reflection is one
            return Either::Left(self.0.call(request.map(|body| OneMessage::new(body, is_stream))));
        };
        let (status, header) = refused;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        response.headers_mut().extend(header);
        Either::Right(ready(Ok(response)))
    }
}

/// `application/grpc` or `application/grpc+proto`, in any case, parameters allowed.
fn is_grpc(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    ["application/grpc", "application/grpc+proto"].iter().any(|grpc| essence.eq_ignore_ascii_case(grpc))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, header};

    use super::is_grpc;

    #[test]
    fn the_content_type_is_grpc_with_protobuf() {
        let is = |value| is_grpc(&HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(value))]));
        for good in ["application/grpc", "application/grpc+proto", "Application/GRPC; charset=utf-8"] {
            assert!(is(good), "{good}");
        }
        for bad in ["", "application/json", "application/grpc+json", "application/grpc-web", "application/grpcx"] {
            assert!(!is(bad), "{bad}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
