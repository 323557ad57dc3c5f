//! Corrects tonic's status for a message over the size limit: RESOURCE_EXHAUSTED, as gRPC defines it, with a message that
//! names the limit.

use std::task::{Context, Poll};

use futures_util::{TryFutureExt as _, future::MapOk};
use http::{Request, Response};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service, layer::layer_fn};

use crate::{error::Error, grpc::status};

const MESSAGE: &str =
    "the message is larger than the gateway's limit: max_message_size for calls, 4 KiB for health and reflection";

/// A service with corrected statuses.
#[derive(Clone)]
pub(in crate::grpc) struct MessageSize<S>(S);

impl<S> MessageSize<S> {
    pub(in crate::grpc) fn layer() -> impl Layer<S, Service = Self> + Clone {
        layer_fn(Self)
    }
}

impl<S, B> Service<Request<B>> for MessageSize<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Error>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = MapOk<S::Future, fn(Response<Body>) -> Response<Body>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.0.call(request).map_ok(correct)
    }
}

/// Returns the status of a message over the limit.
pub(super) fn exceeded() -> Status {
    Status::resource_exhausted(MESSAGE)
}

fn correct(response: Response<Body>) -> Response<Body> {
    match status::of_response(&response) {
        Some(status) if is_of_size(status) => exceeded().into_http(),
        _ => response,
    }
}

/// Corrects the status of a message on a stream.
pub(in crate::grpc) fn correct_status(status: Status) -> Status {
    if is_of_size(&status) { exceeded() } else { status }
}

/// Only tonic's decoder answers OUT_OF_RANGE here, for the length of a message.
fn is_of_size(status: &Status) -> bool {
    status.code() == Code::OutOfRange
}
