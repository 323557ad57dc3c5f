//! Rejects requests that are not gRPC with an HTTP status: a method other than POST, another content type.
//!
//! The bodies of the others become [`UnaryBody`]s, which reject a second message.

use std::{
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::{BoxFuture, Either, poll_fn};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use tokio::time::timeout;
use tonic::body::Body;
use tower::{Layer, Service, layer::layer_fn};

use super::unary_body::UnaryBody;
use crate::{error::Error, grpc::routes::REFLECTION_PREFIX};

/// How long a rejection waits for the end of the request.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// A service for gRPC requests.
#[derive(Clone)]
pub(in crate::grpc) struct RequireGrpc<S>(S);

impl<S> RequireGrpc<S> {
    pub(in crate::grpc) fn layer() -> impl Layer<S, Service = Self> + Clone {
        layer_fn(Self)
    }
}

impl<S, B> Service<Request<B>> for RequireGrpc<S>
where
    S: Service<Request<UnaryBody<B>>, Response = Response<Body>, Error = Error>,
    B: hyper::body::Body<Data: Send> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response<Body>, Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let rejection = if request.method() != Method::POST {
            let mut response = rejection(StatusCode::METHOD_NOT_ALLOWED, "a gRPC call is a POST\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
            response
        } else if !is_grpc(request.headers()) {
            rejection(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a gRPC call has the content type application/grpc\n")
        } else {
            let is_stream = request.uri().path().starts_with(REFLECTION_PREFIX);
            let body = |inner| if is_stream { UnaryBody::stream(inner) } else { UnaryBody::unary(inner) };
            return Either::Left(self.0.call(request.map(body)));
        };
        Either::Right(Box::pin(async move {
            // A request that turns out to be malformed is reset, not answered.
            let _ = timeout(DRAIN_TIMEOUT, drain(request.into_body())).await;
            Ok(rejection)
        }))
    }
}

/// Returns a response with an explanation (RFC 9110 15.5).
fn rejection(status: StatusCode, explanation: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::new(explanation.to_owned()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// Reads a body to its end.
async fn drain(body: impl hyper::body::Body) {
    let mut body = pin!(body);
    while let Some(Ok(_)) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {}
}

/// Returns whether the content type is `application/grpc` or `application/grpc+proto`, in any case, with any parameters.
fn is_grpc(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    ["application/grpc", "application/grpc+proto"].iter().any(|grpc| essence.eq_ignore_ascii_case(grpc))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use futures_util::stream;
    use http::{HeaderMap, HeaderValue, Request, Response, header};
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use tonic::body::Body;
    use tower::{Layer as _, ServiceExt as _, service_fn};

    use super::{DRAIN_TIMEOUT, RequireGrpc, UnaryBody, is_grpc};
    use crate::{clock, error::Error};

    #[tokio::test(start_paused = true)]
    async fn a_rejection_does_not_wait_forever() {
        type Endless = StreamBody<stream::Pending<Result<Frame<Bytes>, Infallible>>>;
        async fn never(_: Request<UnaryBody<Endless>>) -> Result<Response<Body>, Error> {
            unreachable!()
        }
        let start = clock::monotonic();
        let request = Request::post("/").body(StreamBody::new(stream::pending())).unwrap();
        let response = RequireGrpc::layer().layer(service_fn(never)).oneshot(request).await.unwrap();
        assert_eq!((response.status().as_u16(), start.elapsed()), (415, DRAIN_TIMEOUT));
    }

    #[test]
    fn the_content_type_must_be_grpc_with_protobuf() {
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
