//! Charges the response body to the account of its connection until it has left.

use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{Request, Response};
use hyper::body::{Frame, SizeHint};
use tonic::{Status, body::Body};
use tower::{Layer, Service, layer::layer_fn};

use crate::grpc::{
    context::Streamed,
    limit::connection_memory::{Account, CountedStream, UNREAD_BODY},
    routes::BUILTIN_PREFIX,
};

/// A service whose response bodies are charged.
#[derive(Clone)]
pub(in crate::grpc) struct ChargeResponse<S> {
    inner: S,
    account: Arc<Account>,
}

impl<S> ChargeResponse<S> {
    /// Creates the layer of one connection.
    pub(in crate::grpc) fn layer(account: Arc<Account>) -> impl Layer<S, Service = Self> + Clone {
        layer_fn(move |inner| Self { inner, account: account.clone() })
    }
}

impl<S, B> Service<Request<B>> for ChargeResponse<S>
where
    S: Service<Request<B>, Response = Response<Body>, Future: Unpin>,
{
    type Response = Response<ChargedBody>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let is_builtin = request.uri().path().starts_with(BUILTIN_PREFIX);
        ResponseFuture { inner: self.inner.call(request), account: self.account.clone(), is_builtin, builtin: None }
    }
}

/// The response to come.
pub(in crate::grpc) struct ResponseFuture<F> {
    inner: F,
    account: Arc<Account>,
    is_builtin: bool,
    builtin: Option<CountedStream>,
}

impl<F, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>> + Unpin,
{
    type Output = Result<Response<ChargedBody>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Not at the call, so that a connection is not idle before its requests are processed.
        if mem::take(&mut self.is_builtin) {
            self.builtin = Some(self.account.builtin_stream());
        }
        let response = ready!(Pin::new(&mut self.inner).poll(cx))?;
        // A stream of an RPC waits for its next message most of the time, and has no unread body then.
        let (charge, counted) = if response.extensions().get::<Streamed>().is_some() {
            (0, Some(self.account.watch()))
        } else {
            (UNREAD_BODY, self.builtin.take())
        };
        Poll::Ready(Ok(response.map(|inner| ChargedBody::new(inner, charge, self.account.clone(), counted))))
    }
}

/// A response body that is charged until h2 has taken all of it.
pub(in crate::grpc) struct ChargedBody {
    inner: Body,
    charge: usize,
    account: Arc<Account>,
    _counted: Option<CountedStream>,
}

impl ChargedBody {
    fn new(inner: Body, charge: usize, account: Arc<Account>, counted: Option<CountedStream>) -> Self {
        account.charge(charge);
        Self { inner, charge, account, _counted: counted }
    }
}

impl Drop for ChargedBody {
    fn drop(&mut self) {
        self.account.release(self.charge);
    }
}

impl hyper::body::Body for ChargedBody {
    type Data = ChargedBytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<ChargedBytes>, Status>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        let charge = |bytes| ChargedBytes::new(bytes, this.account.clone());
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(charge))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A part of a response body that is charged until the socket has accepted it, or its stream is reset.
pub(in crate::grpc) struct ChargedBytes {
    bytes: Bytes,
    charge: usize,
    account: Arc<Account>,
}

impl ChargedBytes {
    fn new(bytes: Bytes, account: Arc<Account>) -> Self {
        let charge = bytes.len();
        account.add_unsent(charge);
        Self { bytes, charge, account }
    }
}

impl Drop for ChargedBytes {
    fn drop(&mut self) {
        self.account.remove_unsent(self.charge);
    }
}

impl Buf for ChargedBytes {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}
