//! Enforces the caller's deadline, `grpc-timeout`, and otherwise the gateway's own, so that no call waits for an incomplete
//! request forever.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, Request, Response};
use tokio::time::timeout;
use tonic::{Status, body::Body};
use tower::{Layer, Service, layer::layer_fn};

use crate::{
    error::{Error, Progress, Reason},
    grpc::context::CallContext,
};

/// A service with a timeout.
#[derive(Clone)]
pub(in crate::grpc) struct Deadline<S> {
    inner: S,
    max: Duration,
}

impl<S> Deadline<S> {
    /// Creates the layer. No call takes longer than `max`.
    pub(in crate::grpc) fn layer(max: Duration) -> impl Layer<S, Service = Self> + Clone {
        layer_fn(move |inner| Self { inner, max })
    }
}

impl<S, B> Service<Request<B>> for Deadline<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Error, Future: Send + 'static>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Response<Body>, Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let caller_timeout = match grpc_timeout(request.headers()) {
            Ok(timeout) => timeout,
            Err(Malformed) => return Box::pin(async { Ok(Status::internal("grpc-timeout is malformed").into_http()) }),
        };
        let limit = caller_timeout.map_or(self.max, |timeout| timeout.min(self.max));
        let call = request.extensions().get::<Arc<CallContext>>().cloned();
        if let Some((call, timeout)) = call.as_ref().zip(caller_timeout) {
            call.set_timeout(timeout);
        }
        let response = timeout(limit, self.inner.call(request));
        Box::pin(async move {
            response.await.unwrap_or_else(|_| {
                // The resource is known once the request is complete.
                let is_complete = call.is_none_or(|call| call.resource().is_some());
                Err(if is_complete {
                    Error::new(Reason::Deadline, Progress::MaybeSent)
                } else {
                    Error::deadline_before_send("request body incomplete")
                })
            })
        })
    }
}

static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

#[derive(Debug, PartialEq)]
pub(in crate::grpc) struct Malformed;

/// Parses `grpc-timeout`: one to eight digits and a unit (gRPC over HTTP/2, "Timeout").
pub(in crate::grpc) fn grpc_timeout(headers: &HeaderMap) -> Result<Option<Duration>, Malformed> {
    let Some(value) = headers.get(&GRPC_TIMEOUT) else { return Ok(None) };
    let text = value.to_str().map_err(|_| Malformed)?;
    let (digits, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or(Malformed)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Malformed);
    }
    let number = digits.parse::<u64>().map_err(|_| Malformed)?;
    Ok(Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return Err(Malformed),
    }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, HeaderValue};

    use super::{GRPC_TIMEOUT, Malformed, grpc_timeout};

    fn read(value: &'static str) -> Result<Option<Duration>, Malformed> {
        grpc_timeout(&HeaderMap::from_iter([(GRPC_TIMEOUT.clone(), HeaderValue::from_static(value))]))
    }

    #[test]
    fn every_unit_is_parsed() {
        for (value, expected) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("99999999S", Duration::from_secs(99_999_999)),
            ("250m", Duration::from_millis(250)),
            ("1u", Duration::from_micros(1)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(read(value), Ok(Some(expected)), "{value}");
        }
        assert_eq!(grpc_timeout(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn anything_else_is_malformed() {
        for value in ["", "S", "1", "1s", "-1S", "1.5S", "123456789S", " 1S", "1 S", "1SS"] {
            assert_eq!(read(value), Err(Malformed), "{value}");
        }
    }
}
