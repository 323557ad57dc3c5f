//! Attaches the caller to each request, as an extension.

use std::task::{Context, Poll};

use http::Request;
use tower::{Layer, Service, layer::layer_fn};

use crate::grpc::auth::peer::Peer;

/// A service whose requests have a `Caller` extension.
#[derive(Clone)]
pub(in crate::grpc) struct PeerIdentity<S> {
    inner: S,
    peer: Peer,
}

impl<S> PeerIdentity<S> {
    /// Creates the layer of one connection.
    pub(in crate::grpc) fn layer(peer: Peer) -> impl Layer<S, Service = Self> + Clone {
        layer_fn(move |inner| Self { inner, peer: peer.clone() })
    }
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for PeerIdentity<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let caller = self.peer.caller(request.headers());
        request.extensions_mut().insert(caller);
        self.inner.call(request)
    }
}
