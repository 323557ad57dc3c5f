//! One SERVER span, one duration and one audit line per call.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use hyper::body::{Frame, SizeHint};
use opentelemetry::Context;
use tokio_util::task::TaskTracker;
use tonic::{Status, body::Body};
use tower::{Layer, Service, layer::layer_fn};

use crate::{
    grpc::{
        auth::{AccessPolicy, Caller},
        context::Streamed,
        dry_run::DryRun,
        routes::BUILTIN_PREFIX,
    },
    ops::telemetry::{DurationHistogram, Telemetry, traceparent},
};

mod call_span;
mod outcome;

use call_span::CallSpan;
use outcome::CallOutcome;

/// What the trace layers of all connections share.
#[derive(Clone)]
pub(in crate::grpc) struct Shared(Arc<Inner>);

struct Inner {
    telemetry: Arc<Telemetry>,
    durations: Arc<DurationHistogram<CallOutcome>>,
    calls: TaskTracker,
    policy: Arc<AccessPolicy>,
}

impl Shared {
    pub(in crate::grpc) fn new(telemetry: Arc<Telemetry>, calls: TaskTracker, policy: Arc<AccessPolicy>) -> Self {
        let durations = telemetry.durations("rpc.server.call.duration", "Duration of a call, in seconds");
        Self(Arc::new(Inner { telemetry, durations, calls, policy }))
    }
}

/// A service whose calls are traced. Health and reflection are not.
#[derive(Clone)]
pub(in crate::grpc) struct Trace<S> {
    inner: S,
    shared: Shared,
}

impl<S> Trace<S> {
    pub(in crate::grpc) fn layer(shared: Shared) -> impl Layer<S, Service = Self> + Clone {
        layer_fn(move |inner| Self { inner, shared: shared.clone() })
    }
}

impl<S, B> Service<Request<B>> for Trace<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        if path.starts_with(BUILTIN_PREFIX) {
            return Box::pin(self.inner.call(request));
        }
        let Inner { telemetry, durations, calls, policy } = &*self.shared.0;
        let caller = request.extensions().get::<Caller>().cloned().unwrap_or_default();
        // The sampled flag of an unlisted caller could fill the exporter.
        let is_listed = policy.require_listed(&caller).is_ok();
        let parent = if is_listed { traceparent::extract(request.headers()) } else { Context::new() };
        let dry_run = DryRun::of(request.headers());
        let span = CallSpan::start(telemetry, durations, path, &parent, caller, dry_run);
        request.extensions_mut().insert(span.context().clone());
        let in_flight = calls.token();
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await?;
            drop(in_flight);
            if response.extensions().get::<Streamed>().is_some() {
                return Ok(response.map(|inner| Body::new(TracedBody { inner, span: Some(span) })));
            }
            span.end(&response);
            Ok(response)
        })
    }
}

/// The body of a stream, whose call ends with its trailers. It is not in flight: the drain ends it without waiting for it.
struct TracedBody {
    inner: Body,
    /// `None` once the call has ended.
    span: Option<CallSpan>,
}

impl hyper::body::Body for TracedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
            && let Some(span) = self.span.take()
        {
            span.end_stream(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
