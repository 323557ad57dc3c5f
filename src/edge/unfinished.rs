//! Bounds what requests cost that have not come whole: their headers and the bytes of their messages, over all
//! connections. A request is counted until it is whole or gives up; one beyond the bound is refused.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{self, ready},
};

use bytes::Bytes;
use futures_util::future::{Either, Ready, ready as now};
use http::{HeaderMap, Request, Response};
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tower::Service;

use super::{GRPC_OWN, fail, routes::QUESTION};
use crate::{call::Call, error::Error};

/// What a header costs beside its text (RFC 9113 6.5.2, SETTINGS_MAX_HEADER_LIST_SIZE).
const HEADER: usize = 32;

#[derive(Clone)]
pub(super) struct Unfinished<S> {
    inner: S,
    bytes: Arc<Semaphore>,
}

impl<S> Unfinished<S> {
    /// For so many bytes, which all clones share.
    pub(super) fn new(inner: S, bytes: Arc<Semaphore>) -> Self {
        Self { inner, bytes }
    }
}

impl<S, B> Service<Request<B>> for Unfinished<S>
where
    S: Service<Request<Counted<B>>, Response = Response<tonic::body::Body>, Error = Infallible>,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<S::Response, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let call = request.extensions().get::<Arc<Call>>().cloned();
        let mut held = Held { bytes: self.bytes.clone(), permit: None, call };
        // Questions to health and reflection are small, and reflection is a stream without end: the most that one holds.
        let is_whole_at_once = request.uri().path().starts_with(GRPC_OWN);
        let question = if is_whole_at_once { QUESTION } else { 0 };
        if let Err(status) = held.more(size(request.headers()) + question) {
            return Either::Right(now(Ok(status.into_http())));
        }
        Either::Left(self.inner.call(request.map(|inner| Counted { inner, held, is_whole_at_once })))
    }
}

fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER).sum()
}

/// What one request holds, given back when it is dropped.
struct Held {
    bytes: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
    call: Option<Arc<Call>>,
}

impl Held {
    fn more(&mut self, bytes: usize) -> Result<(), Status> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        match (self.bytes.clone().try_acquire_many_owned(bytes), &mut self.permit) {
            (Ok(more), Some(held)) => held.merge(more),
            (Ok(more), none) => *none = Some(more),
            (Err(_), _) => return Err(fail(self.call.as_ref(), Error::overloaded("max_unfinished"))),
        }
        Ok(())
    }
}

/// A request body that is counted as it comes.
pub(super) struct Counted<B> {
    inner: B,
    held: Held,
    is_whole_at_once: bool,
}

impl<B> Body for Counted<B>
where
    B: Body<Data = Bytes, Error = Box<dyn std::error::Error + Send + Sync>> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && !this.is_whole_at_once
            && let Err(status) = this.held.more(data.len())
        {
            return task::Poll::Ready(Some(Err(status.into())));
        }
        task::Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
