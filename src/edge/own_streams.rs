//! Ends the streams of gRPC's own services with a status, before their connection is cut: all of them when it is told to
//! end, and one of reflection, which waits for questions as long as its client likes, when the time of a call is over.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{self, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, Either};
use http::{HeaderMap, Request, Response};
use hyper::body::{Frame, SizeHint};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body};
use tower::Service;

use super::{GRPC_OWN, REFLECTION};

#[derive(Clone)]
pub(super) struct OwnStreams<S> {
    inner: S,
    ending: CancellationToken,
    most: Duration,
}

impl<S> OwnStreams<S> {
    /// For a connection that is `ending` one day, where no call takes longer than `most`.
    pub(super) fn new(inner: S, ending: CancellationToken, most: Duration) -> Self {
        Self { inner, ending, most }
    }
}

impl<S, B> Service<Request<B>> for OwnStreams<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        if !path.starts_with(GRPC_OWN) {
            return Either::Left(self.inner.call(request));
        }
        let (ending, most) = (self.ending.clone(), path.starts_with(REFLECTION).then_some(self.most));
        let end = async move {
            tokio::select! {
                () = ending.cancelled() => Status::unavailable("the connection ends: call again"),
                () = sleep(most.unwrap_or_default()), if most.is_some() => {
                    Status::deadline_exceeded("reflection takes questions as long as a call may take: call again")
                }
            }
        };
        let answer = self.inner.call(request);
        Either::Right(Box::pin(async move {
            Ok(answer.await?.map(|inner| Body::new(Ended { inner: Some(inner), end: Box::pin(end) })))
        }))
    }
}

/// An answer that ends when `end` is done, if it is not over before.
struct Ended {
    /// None once it has ended.
    inner: Option<Body>,
    end: BoxFuture<'static, Status>,
}

impl hyper::body::Body for Ended {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(inner).poll_frame(cx) {
            return Poll::Ready(frame); // what there is to say is said
        }
        this.end.as_mut().poll(cx).map(|status| {
            this.inner = None;
            let mut trailers = HeaderMap::new();
            Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers)))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(|inner| inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
