//! A panic in a handler becomes INTERNAL / PANIC and is counted; the process and the connection live on.

use std::{
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use http::{Request, Response};
use opentelemetry::metrics::{Counter, Meter};
use tonic::body::Body;
use tower::Service;

use super::fail;
use crate::{
    call::Call,
    error::{Error, Progress, Reason},
};

#[derive(Clone)]
pub(super) struct CatchPanic<S> {
    inner: S,
    panics: Counter<u64>,
}

impl<S> CatchPanic<S> {
    pub(super) fn new(inner: S, meter: &Meter) -> Self {
        let panics = meter.u64_counter("scm_gateway.panics").with_unit("{panic}");
        let panics = panics.with_description("Calls that ended by a defect of the gateway").build();
        panics.add(0, &[]); // shown before the first one, so that a rate sees it
        Self { inner, panics }
    }
}

impl<S, B> Service<Request<B>> for CatchPanic<S>
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
        let call = request.extensions().get::<Arc<Call>>().cloned();
        let panics = self.panics.clone();
        let called = catch_unwind(AssertUnwindSafe(|| self.inner.call(request)));
        Box::pin(async move {
            let answered = match called {
                Ok(answer) => AssertUnwindSafe(answer).catch_unwind().await,
                Err(panic) => Err(panic),
            };
            // The panic's own words may hold anything: they go no further.
            answered.unwrap_or_else(|_| {
                panics.add(1, &[]);
                let error = Error::new(Reason::Panic, Progress::MaybeSent);
                Ok(fail(call.as_ref(), error).into_http())
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::Ready};

    use http::{Request, Response};
    use opentelemetry::metrics::MeterProvider as _;
    use opentelemetry_sdk::metrics::SdkMeterProvider;
    use tonic::{Code, Status, body::Body};
    use tonic_types::StatusExt as _;
    use tower::{Service, ServiceExt as _, service_fn};

    use super::CatchPanic;

    async fn assert_caught<S>(service: S)
    where
        S: Service<Request<()>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>,
    {
        let meter = SdkMeterProvider::default().meter("test");
        let response = CatchPanic::new(service, &meter).oneshot(Request::new(())).await.unwrap();
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(status.get_error_details().error_info().unwrap().reason, "PANIC");
        assert!(!format!("{response:?}").contains("marker"));
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_without_its_words_whether_it_comes_at_once_or_later() {
        async fn later(_: Request<()>) -> Result<Response<Body>, Infallible> {
            panic!("marker");
        }
        fn at_once(_: Request<()>) -> Ready<Result<Response<Body>, Infallible>> {
            panic!("marker");
        }
        assert_caught(service_fn(later)).await;
        assert_caught(service_fn(at_once)).await;
    }
}
