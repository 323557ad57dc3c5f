//! Bounds what calls hold that are not over, over all connections: headers and messages that have not come whole, answers
//! that nobody reads. Neither strangers nor one caller can have all of it. A call beyond the bound is refused.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{self, ready},
};

use bytes::Bytes;
use futures_util::future::{Either, Ready, ready as now};
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Status, body::Body};
use tower::Service;

use super::{GRPC_OWN, REFLECTION, STRANGERS, fail, routes::QUESTION};
use crate::{
    call::Call,
    caller::{Caller, Callers},
    config::{self, UNFINISHED_CALL},
    error::Error,
    shares::{Share, Shares},
};

/// What a header costs beside its text (RFC 9113 6.5.2, SETTINGS_MAX_HEADER_LIST_SIZE).
const HEADER: usize = 32;

/// What there is, for all and for each.
pub(super) struct Room {
    all: Arc<Semaphore>,
    /// Of it, for each caller that is known.
    callers: Shares,
    /// Of it, for those who are not listed, who have one share.
    strangers: Shares,
    stranger: Arc<str>,
    listed: Arc<Callers>,
    /// What a stream may hold in its window.
    initial_stream_window_size: usize,
}

impl Room {
    pub(super) fn new(limits: &config::Unfinished, initial_stream_window_size: u32, listed: Arc<Callers>) -> Self {
        Self {
            all: Arc::new(Semaphore::new(limits.max)),
            callers: Shares::new(limits.max_per_caller),
            strangers: Shares::new(limits.max.div_ceil(STRANGERS)),
            stranger: "".into(),
            listed,
            initial_stream_window_size: initial_stream_window_size as usize,
        }
    }
}

#[derive(Clone)]
pub(super) struct Unfinished<S> {
    inner: S,
    room: Arc<Room>,
}

impl<S> Unfinished<S> {
    /// Within this room, which all clones share.
    pub(super) fn new(inner: S, room: Arc<Room>) -> Self {
        Self { inner, room }
    }
}

impl<S, B> Service<Request<B>> for Unfinished<S>
where
    S: Service<Request<Counted<B>>, Response = Response<Body>, Error = Infallible, Future: Unpin>,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = Either<Answered<S::Future>, Ready<Result<S::Response, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let extensions = request.extensions();
        let call = extensions.get().cloned();
        let mut held = Held::none_yet(&self.room, extensions.get());
        // What gRPC's own services read is counted ahead: a question to health is small, and reflection is a stream without
        // end, whose window may be full.
        let path = request.uri().path();
        let counted_ahead = path.starts_with(GRPC_OWN);
        let ahead = match counted_ahead {
            false => 0,
            true if path.starts_with(REFLECTION) => self.room.initial_stream_window_size,
            true => QUESTION,
        };
        if let Err(limit) = held.more(UNFINISHED_CALL + size(request.headers()) + ahead) {
            return Either::Right(now(Ok(refuse(call.as_ref(), limit).into_http())));
        }
        let open = held.split(UNFINISHED_CALL);
        let answer = self.inner.call(request.map(|inner| Counted { inner, held, call, counted_ahead }));
        Either::Left(Answered { answer, open: Some(open) })
    }
}

/// An answer that is waited for, and what its call holds until the answer is on its way.
pub(super) struct Answered<F> {
    answer: F,
    open: Option<Held>,
}

impl<F: Future<Output = Result<Response<Body>, Infallible>> + Unpin> Future for Answered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> task::Poll<Self::Output> {
        let response = ready!(Pin::new(&mut self.answer).poll(cx))?;
        let open = self.open.take();
        task::Poll::Ready(Ok(response.map(|answer| {
            Body::new(answer.map_frame(move |frame| {
                let _ = &open; // until the body is dropped: all of it is on its way, or its stream is no more
                frame
            }))
        })))
    }
}

fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER).sum()
}

/// What one holds, given back when it is dropped.
struct Held {
    all: OwnedSemaphorePermit,
    /// Where callers are told apart: the same bytes of one's own part, and the limit of that.
    own: Option<(Share, &'static str)>,
}

impl Held {
    /// Nothing yet.
    fn none_yet(room: &Room, caller: Option<&Caller>) -> Self {
        let nobody = Caller::default();
        let caller = caller.unwrap_or(&nobody);
        let own = match caller.identity() {
            _ if room.listed.may_look(caller).is_err() => {
                Some((room.strangers.none_yet(&room.stranger), "memory_quota"))
            }
            Some(identity) => Some((room.callers.none_yet(identity), "memory_quota_per_caller")),
            None => None,
        };
        Self { all: room.all.clone().try_acquire_many_owned(0).expect("it is never closed"), own }
    }

    /// So many bytes more, or which limit that would be beyond.
    fn more(&mut self, bytes: usize) -> Result<(), &'static str> {
        if let Some((share, limit)) = &mut self.own
            && !share.more(bytes)
        {
            return Err(limit);
        }
        if take(&mut self.all, bytes) { Ok(()) } else { Err("memory_quota") }
    }

    /// Parts with so many of its bytes.
    fn split(&mut self, bytes: usize) -> Self {
        let own = self.own.as_mut().map(|(share, limit)| (share.split(bytes), *limit));
        Self { all: self.all.split(bytes).expect("so many were taken"), own }
    }
}

fn take(permit: &mut OwnedSemaphorePermit, bytes: usize) -> bool {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    let more = permit.semaphore().clone().try_acquire_many_owned(bytes);
    more.map(|more| permit.merge(more)).is_ok()
}

fn refuse(call: Option<&Arc<Call>>, limit: &'static str) -> Status {
    fail(call, Error::overloaded(limit))
}

/// A request body that is counted as it comes.
pub(super) struct Counted<B> {
    inner: B,
    held: Held,
    call: Option<Arc<Call>>,
    counted_ahead: bool,
}

impl<B> hyper::body::Body for Counted<B>
where
    B: hyper::body::Body<Data = Bytes, Error = Box<dyn std::error::Error + Send + Sync>> + Unpin,
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
            && !this.counted_ahead
            && let Err(limit) = this.held.more(data.len())
        {
            return task::Poll::Ready(Some(Err(refuse(this.call.as_ref(), limit).into())));
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
