//! Refuses who is not listed before anything of the message is read: it may be long, packed, or never end. Health
//! answers everybody. What a caller that is listed may call is decided where the method is known, in the service.

use std::{convert::Infallible, sync::Arc, task};

use futures_util::future::{Either, Ready, ready};
use http::{Request, Response};
use tonic::body::Body;
use tower::Service;

use super::fail;
use crate::{
    caller::{Caller, Callers},
    error::{Error, Progress},
};

/// Paths that are everybody's.
const HEALTH: &str = "/grpc.health.v1.Health/";

#[derive(Clone)]
pub(super) struct Strangers<S> {
    inner: S,
    callers: Arc<Callers>,
}

impl<S> Strangers<S> {
    pub(super) fn new(inner: S, callers: Arc<Callers>) -> Self {
        Self { inner, callers }
    }
}

impl<S, B> Service<Request<B>> for Strangers<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let extensions = request.extensions();
        let nobody = Caller::default();
        match self.callers.may_look(extensions.get().unwrap_or(&nobody)) {
            Err(reason) if !request.uri().path().starts_with(HEALTH) => {
                let status = fail(extensions.get(), Error::new(reason, Progress::NotSent));
                Either::Right(ready(Ok(status.into_http())))
            }
            _ => Either::Left(self.inner.call(request)),
        }
    }
}
