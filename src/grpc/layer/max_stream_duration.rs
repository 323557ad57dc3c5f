//! Ends the streams of health and reflection with a status before their connection is closed.
//!
//! All of them end when the connection is draining. A reflection stream, which its client could keep open without limit,
//! also ends after the longest duration of a call. The streams of RPCs are calls, which end themselves: their requests get
//! the signal as an extension.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, Either};
use http::{HeaderMap, Request, Response};
use hyper::body::{Frame, SizeHint};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body};
use tower::{Layer, Service, layer::layer_fn};

use crate::{
    grpc::{
        context::Draining,
        routes::{BUILTIN_PREFIX, REFLECTION_PREFIX},
    },
    proto::STREAMS,
};

/// A service whose built-in streams end in time.
#[derive(Clone)]
pub(in crate::grpc) struct MaxStreamDuration<S> {
    inner: S,
    draining: CancellationToken,
    max: Duration,
}

impl<S> MaxStreamDuration<S> {
    /// Creates the layer of one connection, which starts to drain when `draining` is cancelled.
    pub(in crate::grpc) fn layer(draining: CancellationToken, max: Duration) -> impl Layer<S, Service = Self> + Clone {
        layer_fn(move |inner| Self { inner, draining: draining.clone(), max })
    }
}

impl<S, B> Service<Request<B>> for MaxStreamDuration<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if STREAMS.contains(&request.uri().path()) {
            request.extensions_mut().insert(Draining(self.draining.clone()));
        }
        let path = request.uri().path();
        if !path.starts_with(BUILTIN_PREFIX) {
            return Either::Left(self.inner.call(request));
        }
        let draining = self.draining.clone();
        let max = path.starts_with(REFLECTION_PREFIX).then_some(self.max);
        let end = async move {
            tokio::select! {
                () = draining.cancelled() => Status::unavailable("the connection is draining: retry"),
                () = sleep(max.unwrap_or_default()), if max.is_some() => {
                    Status::deadline_exceeded("a reflection stream may last as long as a call: open another one")
                }
            }
        };
        let response = self.inner.call(request);
        Either::Right(Box::pin(async move {
            Ok(response.await?.map(|inner| Body::new(DeadlineBody { inner: Some(inner), end: Box::pin(end) })))
        }))
    }
}

/// A response body that ends with the status of `end`, unless it ends before.
struct DeadlineBody {
    /// `None` once `end` has ended the body.
    inner: Option<Body>,
    end: BoxFuture<'static, Status>,
}

impl hyper::body::Body for DeadlineBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(inner).poll_frame(cx) {
            return Poll::Ready(frame); // frames that are ready go out before the end
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
