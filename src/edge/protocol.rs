//! Refuses in HTTP what is no gRPC call: another method than POST, another content type. Bodies are watched from here
//! on, for a second message.

use std::{convert::Infallible, pin::pin, task, time::Duration};

use futures_util::future::{BoxFuture, Either, poll_fn};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use tokio::time::timeout;
use tonic::body::Body;
use tower::Service;

use super::{REFLECTION, one_message::OneMessage};

/// How long a refusal waits for the end of what it refuses.
const DRAIN: Duration = Duration::from_secs(1);

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
    B: hyper::body::Body<Data: Send> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let refusal = if request.method() != Method::POST {
            let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, "a gRPC call is a POST\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
            response
        } else if !is_grpc(request.headers()) {
            refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a gRPC call has the content type application/grpc\n")
        } else {
            let is_stream = request.uri().path().starts_with(REFLECTION);
            return Either::Left(self.0.call(request.map(|body| OneMessage::new(body, is_stream))));
        };
        Either::Right(Box::pin(async move {
            // A request that turns out malformed on the way is reset, not answered.
            let _ = timeout(DRAIN, drain(request.into_body())).await;
            Ok(refusal)
        }))
    }
}

/// With an explanation, as RFC 9110 15.5 wants it.
fn refusal(status: StatusCode, why: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::new(why.to_owned()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// Reads a body to its end.
async fn drain(body: impl hyper::body::Body) {
    let mut body = pin!(body);
    while let Some(Ok(_)) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {}
}

/// `application/grpc` or `application/grpc+proto`, in any case, parameters allowed.
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
    use tower::{ServiceExt as _, service_fn};

    use super::{DRAIN, OneMessage, Protocol, is_grpc};
    use crate::clock;

    #[tokio::test(start_paused = true)]
    async fn a_refusal_does_not_wait_for_ever() {
        type Endless = StreamBody<stream::Pending<Result<Frame<Bytes>, Infallible>>>;
        async fn never(_: Request<OneMessage<Endless>>) -> Result<Response<Body>, Infallible> {
            unreachable!()
        }
        let start = clock::steady();
        let request = Request::post("/").body(StreamBody::new(stream::pending())).unwrap();
        let response = Protocol::new(service_fn(never)).oneshot(request).await.unwrap();
        assert_eq!((response.status().as_u16(), start.elapsed()), (415, DRAIN));
    }

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
