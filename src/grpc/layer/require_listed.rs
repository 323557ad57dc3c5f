//! Rejects unlisted callers before anything of the message is read: it may be long, compressed, or never complete.
//!
//! Health is open to everybody. The gateway service decides which methods a listed caller may call.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::{Either, Ready, ready};
use http::Request;
use tower::{Layer, Service, layer::layer_fn};

use crate::{
    error::{Error, Progress},
    grpc::auth::{AccessPolicy, Caller},
};

/// The path prefix of health, which needs no listed caller.
const HEALTH_PREFIX: &str = "/grpc.health.v1.Health/";

/// A service for listed callers.
#[derive(Clone)]
pub(in crate::grpc) struct RequireListed<S> {
    inner: S,
    policy: Arc<AccessPolicy>,
}

impl<S> RequireListed<S> {
    pub(in crate::grpc) fn layer(policy: Arc<AccessPolicy>) -> impl Layer<S, Service = Self> + Clone {
        layer_fn(move |inner| Self { inner, policy: policy.clone() })
    }
}

impl<S, B> Service<Request<B>> for RequireListed<S>
where
    S: Service<Request<B>, Error = Error>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = Either<S::Future, Ready<Result<S::Response, Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let unidentified = Caller::default();
        let caller = request.extensions().get().unwrap_or(&unidentified);
        match self.policy.require_listed(caller) {
            Err(reason) if !request.uri().path().starts_with(HEALTH_PREFIX) => {
                Either::Right(ready(Err(Error { cause: caller.cause(), ..Error::new(reason, Progress::NotSent) })))
            }
            _ => Either::Left(self.inner.call(request)),
        }
    }
}
