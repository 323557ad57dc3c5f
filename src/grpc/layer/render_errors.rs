//! Renders errors as gRPC statuses: the only place on the inbound side that does.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use hyper::body::{Frame, SizeHint};
use tonic::{Status, body::Body};
use tower::{BoxError, Layer, Service, layer::layer_fn};

use crate::{
    error::Error,
    grpc::{
        context::{CallContext, Streamed},
        status,
    },
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
                Some(error) => render(error.clone(), self.call.as_deref()).into_http(),
                None => with_rendered_end(response.map(Body::new)),
            },
            Err(error) => render(error, self.call.as_deref()).into_http(),
        }))
    }
}

/// Renders an error. The status keeps the error as its source, for the trace layer.
fn render(error: Error, call: Option<&CallContext>) -> Status {
    let mut status = status::render(&error);
    if let (Some(wait), Some(call)) = (error.retry_after, call) {
        status::set_retry_pushback(&mut status, wait, call.remaining());
    }
    status.set_source(Arc::new(error));
    status
}

/// Renders the error that ends a stream, if the response is one.
fn with_rendered_end(response: Response<Body>) -> Response<Body> {
    match response.extensions().get::<Streamed>().cloned() {
        Some(streamed) => response.map(|inner| Body::new(RenderedBody { inner, streamed })),
        None => response,
    }
}

/// The body of a stream. Its trailers have the status of the error in the call's context.
struct RenderedBody {
    inner: Body,
    streamed: Streamed,
}

impl hyper::body::Body for RenderedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let is_trailers = |frame: &Result<Frame<Bytes>, Status>| frame.as_ref().is_ok_and(Frame::is_trailers);
        let call = &self.streamed.call;
        Poll::Ready(match call.stream_error() {
            Some(error) if frame.as_ref().is_some_and(is_trailers) => {
                let mut trailers = HeaderMap::new();
                let status = render(error.clone(), Some(call));
                Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers)))
            }
            _ => frame,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
