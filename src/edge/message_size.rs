//! Corrects tonic's answers to a message over the limit: RESOURCE_EXHAUSTED, as gRPC has it, not OUT_OF_RANGE, in words
//! that help.

use std::{convert::Infallible, task};

use futures_util::{TryFutureExt as _, future::MapOk};
use http::{Request, Response};
use tonic::{Code, Status, body::Body};
use tower::Service;

#[derive(Clone)]
pub(super) struct MessageSize<S>(S);

impl<S> MessageSize<S> {
    pub(super) fn new(inner: S) -> Self {
        Self(inner)
    }
}

impl<S, B> Service<Request<B>> for MessageSize<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = MapOk<S::Future, fn(Response<Body>) -> Response<Body>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.0.call(request).map_ok(correct)
    }
}

/// Nothing but tonic's decoder answers OUT_OF_RANGE here, or RESOURCE_EXHAUSTED without details: the one for the length
/// that a message says it has, the other for what it inflates to.
fn correct(response: Response<Body>) -> Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(status)
            if status.code() == Code::OutOfRange
                || status.code() == Code::ResourceExhausted && status.details().is_empty() =>
        {
            Status::resource_exhausted("the message is larger than this gateway takes: max_message_size for calls, 4 KiB for health and reflection")
                .into_http()
        }
        _ => response,
    }
}
