//! Renders errors as gRPC statuses: the only place on the inbound side that does.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use tonic::body::Body;
use tower::{BoxError, Layer, Service, layer::layer_fn};

use crate::{
    error::Error,
    grpc::{context::CallContext, status},
};

/// A service whose errors become responses.
#[derive(Clone)]
pub(in crate::grpc) struct RenderErrors<S>(S);

impl<S> RenderErrors<S> {
    pub(in crate::grpc) fn layer() -> impl Layer<S, Service = Self> + Clone {
        layer_fn(Self)
    }
}

impl<S, B, R> Service<Request<B>> for RenderErrors<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Error, Future: Unpin>,
    R: hyper::body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The services inside are always ready.
        self.0.poll_ready(cx).map(|_| Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let call = request.extensions().get::<Arc<CallContext>>().cloned();
        ResponseFuture { inner: self.0.call(request), call }
    }
}

/// The response to come.
pub(in crate::grpc) struct ResponseFuture<F> {
    inner: F,
    /// `None` for health and reflection, which have no context.
    call: Option<Arc<CallContext>>,
}

impl<F, R> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, Error>> + Unpin,
    R: hyper::body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(Pin::new(&mut self.inner).poll(cx));
        Poll::Ready(Ok(match response {
            Ok(response) => match status::of_response(&response).and_then(status::source) {
                Some(error) => render(error.clone(), self.call.as_deref()),
                None => response.map(Body::new),
            },
            Err(error) => render(error, self.call.as_deref()),
        }))
    }
}

/// Renders an error. The status keeps the error as its source, for the trace layer.
fn render(error: Error, call: Option<&CallContext>) -> Response<Body> {
    let mut status = status::render(&error);
    if let (Some(wait), Some(call)) = (error.retry_after, call) {
        status::set_retry_pushback(&mut status, wait, call.remaining());
    }
    status.set_source(Arc::new(error));
    status.into_http()
}
