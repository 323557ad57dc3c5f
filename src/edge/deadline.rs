//! The caller's deadline: `grpc-timeout` is read, noted on the call, and ends it; without one the gateway's own does, so
//! that a request that is never finished is not waited for.

use std::{convert::Infallible, sync::Arc, task, time::Duration};

use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use tokio::time::timeout;
use tonic::{Status, body::Body};
use tower::Service;

use super::fail;
use crate::{
    call::Call,
    error::{Error, Progress, Reason},
};

#[derive(Clone)]
pub(super) struct Deadline<S> {
    inner: S,
    most: Duration,
}

impl<S> Deadline<S> {
    pub(super) fn new(inner: S, most: Duration) -> Self {
        Self { inner, most }
    }
}

impl<S, B> Service<Request<B>> for Deadline<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let given = match grpc_timeout(request.headers()) {
            Ok(given) => given,
            Err(Malformed) => return Box::pin(async { Ok(Status::internal("grpc-timeout is malformed").into_http()) }),
        };
        let time = given.map_or(self.most, |given| given.min(self.most));
        let call = request.extensions().get::<Arc<Call>>().cloned();
        if let Some((call, given)) = call.as_ref().zip(given) {
            call.set_timeout(given);
        }
        let answer = timeout(time, self.inner.call(request));
        Box::pin(async move {
            answer.await.unwrap_or_else(|_| {
                // The subject is known once the message has come.
                let is_whole = call.as_ref().is_none_or(|call| call.subject().is_some());
                let error = match is_whole {
                    true => Error::new(Reason::Deadline, Progress::MaybeSent),
                    false => Error::too_late("request body incomplete"),
                };
                Ok(fail(call.as_ref(), error).into_http())
            })
        })
    }
}

#[derive(Debug, PartialEq)]
struct Malformed;

/// `grpc-timeout`: one to eight digits and a unit (gRPC over HTTP/2, "Timeout").
fn grpc_timeout(headers: &HeaderMap) -> Result<Option<Duration>, Malformed> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
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

    use super::{Malformed, grpc_timeout};

    fn read(value: &'static str) -> Result<Option<Duration>, Malformed> {
        grpc_timeout(&HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-timeout"),
            HeaderValue::from_static(value),
        )]))
    }

    #[test]
    fn every_unit_is_read() {
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
