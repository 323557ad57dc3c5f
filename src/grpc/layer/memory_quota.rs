//! Limits the memory held by open calls across all connections: incomplete requests and unread responses.
//!
//! Neither one caller nor the unlisted callers together can use the whole quota. A call that exceeds it is rejected.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::future::{Either, Ready, ready as now};
use http::{HeaderMap, Request, Response};
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;
use tower::{BoxError, Layer, Service, layer::layer_fn};

use crate::{
    config::{self, CALL_OVERHEAD},
    error::Error,
    grpc::{
        auth::{AccessPolicy, Caller},
        context::Streamed,
        limit::{
            UNLISTED_SHARE,
            keyed_quota::{KeyedPermit, KeyedQuota},
        },
        routes::{BUILTIN_PREFIX, MAX_BUILTIN_REQUEST, REFLECTION_PREFIX},
        status,
    },
};

/// The size of a header field in addition to its text (RFC 9113 6.5.2, SETTINGS_MAX_HEADER_LIST_SIZE).
const HEADER_OVERHEAD: usize = 32;

/// The quota that all connections share, in bytes.
pub(in crate::grpc) struct QuotaPool {
    total: Arc<Semaphore>,
    per_caller: KeyedQuota,
    /// The quota of all unlisted callers together, under one key.
    unlisted: KeyedQuota,
    unlisted_key: Arc<str>,
    policy: Arc<AccessPolicy>,
    /// What one stream can hold in its flow-control window.
    stream_window: usize,
}

impl QuotaPool {
    pub(in crate::grpc) fn new(limits: &config::MemoryQuota, stream_window: u32, policy: Arc<AccessPolicy>) -> Self {
        Self {
            total: Arc::new(Semaphore::new(limits.total)),
            per_caller: KeyedQuota::new(limits.per_caller),
            unlisted: KeyedQuota::new(limits.total.div_ceil(UNLISTED_SHARE)),
            unlisted_key: "".into(),
            policy,
            stream_window: stream_window as usize,
        }
    }

    /// Returns the bytes that a request holds before its body is read. The bodies of health and reflection are charged in
    /// advance: a health request is small, and a reflection stream has no end and may fill its window.
    fn initial_charge<B>(&self, request: &Request<B>) -> usize {
        let path = request.uri().path();
        let prepaid = if !is_prepaid(path) {
            0
        } else if path.starts_with(REFLECTION_PREFIX) {
            self.stream_window
        } else {
            MAX_BUILTIN_REQUEST
        };
        CALL_OVERHEAD + size(request.headers()) + prepaid
    }
}

fn is_prepaid(path: &str) -> bool {
    path.starts_with(BUILTIN_PREFIX)
}

fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD).sum()
}

/// A service whose calls are charged to the quota.
#[derive(Clone)]
pub(in crate::grpc) struct MemoryQuota<S> {
    inner: S,
    pool: Arc<QuotaPool>,
}

impl<S> MemoryQuota<S> {
    pub(in crate::grpc) fn layer(pool: Arc<QuotaPool>) -> impl Layer<S, Service = Self> + Clone {
        layer_fn(move |inner| Self { inner, pool: pool.clone() })
    }
}

impl<S, B> Service<Request<B>> for MemoryQuota<S>
where
    S: Service<Request<QuotaBody<B>>, Response = Response<Body>, Error = Error, Future: Unpin>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = Either<ResponseFuture<S::Future>, Ready<Result<Response<Body>, Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut permit = QuotaPermit::empty(&self.pool, request.extensions().get());
        if let Err(error) = permit.try_grow(self.pool.initial_charge(&request)) {
            return Either::Right(now(Err(error)));
        }
        let overhead = permit.split(CALL_OVERHEAD);
        let prepaid = is_prepaid(request.uri().path());
        let response = self.inner.call(request.map(|inner| QuotaBody { inner, permit, prepaid }));
        Either::Left(ResponseFuture { response, overhead: Some(overhead) })
    }
}

/// The response to come, with the charge that its call holds until the response has left.
pub(in crate::grpc) struct ResponseFuture<F> {
    response: F,
    overhead: Option<QuotaPermit>,
}

impl<F: Future<Output = Result<Response<Body>, Error>> + Unpin> Future for ResponseFuture<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(Pin::new(&mut self.response).poll(cx))?;
        let overhead = self.overhead.take();
        if response.extensions().get::<Streamed>().is_some() {
            // An open stream waits most of the time. The limit of its permit bounds what it holds.
            return Poll::Ready(Ok(response));
        }
        Poll::Ready(Ok(response.map(|inner| Body::new(HoldingBody { inner, _overhead: overhead }))))
    }
}

/// A response body that holds a permit until it is dropped: all of it has left, or its stream was reset.
struct HoldingBody {
    inner: Body,
    _overhead: Option<QuotaPermit>,
}

impl hyper::body::Body for HoldingBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        Pin::new(&mut self.get_mut().inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Bytes of the quota, returned on drop.
struct QuotaPermit {
    total: OwnedSemaphorePermit,
    /// The same bytes of the caller's own quota, and the name of that limit. `None` if callers are not identified.
    own: Option<(KeyedPermit, &'static str)>,
}

impl QuotaPermit {
    /// Returns a permit for no bytes.
    fn empty(pool: &QuotaPool, caller: Option<&Caller>) -> Self {
        let unidentified = Caller::default();
        let caller = caller.unwrap_or(&unidentified);
        let own = match caller.identity() {
            _ if pool.policy.require_listed(caller).is_err() => {
                Some((pool.unlisted.empty(&pool.unlisted_key), "memory_quota"))
            }
            Some(identity) => Some((pool.per_caller.empty(identity), "memory_quota_per_caller")),
            None => None,
        };
        let total = pool.total.clone().try_acquire_many_owned(0).expect("the semaphore is never closed");
        Self { total, own }
    }

    /// Adds bytes to the permit, or returns the error of the limit that they exceed.
    fn try_grow(&mut self, bytes: usize) -> Result<(), Error> {
        if let Some((permit, limit)) = &mut self.own
            && !permit.try_grow(bytes)
        {
            return Err(Error::overloaded(limit));
        }
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let semaphore = self.total.semaphore().clone();
        let grown = semaphore.try_acquire_many_owned(bytes).map_err(|_| Error::overloaded("memory_quota"))?;
        self.total.merge(grown);
        Ok(())
    }

    /// Moves bytes into a permit of their own.
    fn split(&mut self, bytes: usize) -> Self {
        let own = self.own.as_mut().map(|(permit, limit)| (permit.split(bytes), *limit));
        Self { total: self.total.split(bytes).expect("the permit has that many bytes"), own }
    }
}

/// A request body that is charged as it arrives.
pub struct QuotaBody<B> {
    inner: B,
    permit: QuotaPermit,
    prepaid: bool,
}

impl<B> hyper::body::Body for QuotaBody<B>
where
    B: hyper::body::Body<Data = Bytes, Error = BoxError> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && !this.prepaid
            && let Err(error) = this.permit.try_grow(data.len())
        {
            return Poll::Ready(Some(Err(status::carry(error).into())));
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
