//! Bounds what calls cost that are not carried out: headers and the bytes of messages that have not come whole, and
//! answers that nobody reads, over all connections. Neither strangers nor one caller can have all of it. A call beyond
//! the bound is refused.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{self, ready},
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, Either, Ready, ready as now};
use http::{HeaderMap, Request, Response};
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tower::Service;

use super::{GRPC_OWN, STRANGERS, fail, routes::QUESTION};
use crate::{
    call::Call,
    caller::{Caller, Callers},
    config,
    error::Error,
    shares::{Share, Shares},
};

/// What a header costs beside its text (RFC 9113 6.5.2, SETTINGS_MAX_HEADER_LIST_SIZE).
const HEADER: usize = 32;

/// What a call costs beside its bytes, from its first one until its answer is taken: a stream, a task, an answer.
const CALL: usize = config::UNFINISHED_CALL;

/// What there is, for all and for each.
pub(super) struct Room {
    all: Arc<Semaphore>,
    /// Of it, for those who are not listed.
    strangers: Arc<Semaphore>,
    /// Of it, for each caller that is known.
    shares: Shares,
    callers: Arc<Callers>,
}

impl Room {
    pub(super) fn new(limits: &config::Unfinished, callers: Arc<Callers>) -> Self {
        Self {
            all: Arc::new(Semaphore::new(limits.max)),
            strangers: Arc::new(Semaphore::new(limits.max.div_ceil(STRANGERS))),
            shares: Shares::new(limits.max_per_caller),
            callers,
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
    S: Service<Request<Counted<B>>, Response = Response<tonic::body::Body>, Error = Infallible, Future: Send + 'static>,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = Either<BoxFuture<'static, Result<S::Response, Infallible>>, Ready<Result<S::Response, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let extensions = request.extensions();
        let call = extensions.get().cloned();
        let mut held = Held::none_yet(&self.room, extensions.get());
        // Questions to health and reflection are small, and reflection is a stream without end: the most that one holds.
        let is_whole_at_once = request.uri().path().starts_with(GRPC_OWN);
        let question = if is_whole_at_once { QUESTION } else { 0 };
        if let Err(limit) = held.more(CALL + size(request.headers()) + question) {
            return Either::Right(now(Ok(refuse(call.as_ref(), limit).into_http())));
        }
        let open = held.split(CALL);
        let answer = self.inner.call(request.map(|inner| Counted { inner, held, call, is_whole_at_once }));
        Either::Left(Box::pin(async move {
            Ok(answer.await?.map(|inner| tonic::body::Body::new(Answer { inner, _open: open })))
        }))
    }
}

fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER).sum()
}

/// What one holds, given back when it is dropped.
struct Held {
    all: OwnedSemaphorePermit,
    part: Part,
}

/// Whose part it is taken from.
enum Part {
    Stranger(OwnedSemaphorePermit),
    Caller(Share),
    /// Nobody is told apart.
    Whole,
}

impl Held {
    /// Nothing yet, of this caller's part.
    fn none_yet(room: &Room, caller: Option<&Caller>) -> Self {
        let none_of = |bytes: &Arc<Semaphore>| bytes.clone().try_acquire_many_owned(0).expect("it is never closed");
        let nobody = Caller::default();
        let caller = caller.unwrap_or(&nobody);
        let part = match caller.identity() {
            _ if room.callers.may_look(caller).is_err() => Part::Stranger(none_of(&room.strangers)),
            Some(identity) => Part::Caller(room.shares.none_yet(identity)),
            None => Part::Whole,
        };
        Self { all: none_of(&room.all), part }
    }

    /// So many bytes more, or which limit that would be beyond.
    fn more(&mut self, bytes: usize) -> Result<(), &'static str> {
        let (fits, limit) = match &mut self.part {
            Part::Stranger(permit) => (take(permit, bytes), "max_unfinished"),
            Part::Caller(share) => (share.more(bytes), "max_unfinished_per_caller"),
            Part::Whole => (true, ""),
        };
        match fits {
            false => Err(limit),
            true if take(&mut self.all, bytes) => Ok(()),
            true => Err("max_unfinished"),
        }
    }

    /// Parts with so many of its bytes.
    fn split(&mut self, bytes: usize) -> Self {
        let split = |permit: &mut OwnedSemaphorePermit| permit.split(bytes).expect("so many were taken");
        let part = match &mut self.part {
            Part::Stranger(permit) => Part::Stranger(split(permit)),
            Part::Caller(share) => Part::Caller(share.split(bytes)),
            Part::Whole => Part::Whole,
        };
        Self { all: split(&mut self.all), part }
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

/// An answer, until it is taken or given up.
struct Answer {
    inner: tonic::body::Body,
    _open: Held,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> task::Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.get_mut().inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
