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
        let call = extensions.get::<Arc<Call>>().cloned();
        let hold = || Held::new(&self.room, extensions.get(), call.clone());
        let (mut open, mut held) = (hold(), hold());
        // Questions to health and reflection are small, and reflection is a stream without end: the most that one holds.
        let is_whole_at_once = request.uri().path().starts_with(GRPC_OWN);
        let question = if is_whole_at_once { QUESTION } else { 0 };
        if let Err(status) = open.more(CALL).and_then(|()| held.more(size(request.headers()) + question)) {
            return Either::Right(now(Ok(status.into_http())));
        }
        let answer = self.inner.call(request.map(|inner| Counted { inner, held, is_whole_at_once }));
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
    all: Permits,
    of: Part,
    call: Option<Arc<Call>>,
}

/// Whose part it is taken from.
enum Part {
    Stranger(Permits),
    Caller(Share),
    /// Nobody is told apart.
    Whole,
}

impl Held {
    fn new(room: &Room, caller: Option<&Caller>, call: Option<Arc<Call>>) -> Self {
        let nobody = Caller::default();
        let caller = caller.unwrap_or(&nobody);
        let of = match caller.identity() {
            _ if room.callers.may_look(caller).is_err() => Part::Stranger(Permits::of(&room.strangers)),
            Some(identity) => Part::Caller(room.shares.none_yet(identity)),
            None => Part::Whole,
        };
        Self { all: Permits::of(&room.all), of, call }
    }

    fn more(&mut self, bytes: usize) -> Result<(), Status> {
        let fits_its_part = match &mut self.of {
            Part::Stranger(permits) => permits.more(bytes),
            Part::Caller(share) => share.more(bytes),
            Part::Whole => true,
        };
        let limit = match (fits_its_part, &self.of) {
            (true, _) if self.all.more(bytes) => return Ok(()),
            (false, Part::Caller(_)) => "max_unfinished_per_caller",
            _ => "max_unfinished",
        };
        Err(fail(self.call.as_ref(), Error::overloaded(limit)))
    }
}

/// Permits taken one after the other.
struct Permits {
    of: Arc<Semaphore>,
    taken: Option<OwnedSemaphorePermit>,
}

impl Permits {
    fn of(semaphore: &Arc<Semaphore>) -> Self {
        Self { of: semaphore.clone(), taken: None }
    }

    fn more(&mut self, number: usize) -> bool {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        match (self.of.clone().try_acquire_many_owned(number), &mut self.taken) {
            (Ok(more), Some(taken)) => taken.merge(more),
            (Ok(more), none) => *none = Some(more),
            (Err(_), _) => return false,
        }
        true
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
