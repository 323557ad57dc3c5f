//! Converts a panic in a handler into INTERNAL / PANIC and counts it. The process and the connection stay alive.

use std::{
    any::Any,
    future::{Ready, ready},
    panic::{AssertUnwindSafe, catch_unwind},
};

use futures_util::future::Either;
use http::Response;
use opentelemetry::metrics::{Counter, Meter};
use tonic::body::Body;
use tower::Service;
use tower_http::catch_panic::{CatchPanicLayer, ResponseForPanic};

use crate::{
    error::{Error, Progress, Reason},
    grpc::status,
};

/// Counts panics and responds to them.
#[derive(Clone)]
pub(in crate::grpc) struct PanicHandler(Counter<u64>);

impl PanicHandler {
    /// Creates the handler and its counter.
    pub(in crate::grpc) fn new(meter: &Meter) -> Self {
        let panics = meter.u64_counter("scm_gateway.panics").with_unit("{panic}");
        let panics = panics.with_description("Calls that ended with a panic of the gateway").build();
        panics.add(0, &[]); // so that a rate sees the first panic
        Self(panics)
    }

    /// Counts a panic.
    pub(in crate::grpc) fn count(&self) {
        self.0.add(1, &[]);
    }

    /// Calls the stack. hyper does that in the task of the connection, so a panic of a layer around this one would end all
    /// its calls. It resets the stream instead.
    pub(in crate::grpc) fn call<R, S>(
        &self,
        service: &mut S,
        request: R,
    ) -> Either<S::Future, Ready<Result<S::Response, h2::Error>>>
    where
        S: Service<R, Error = h2::Error>,
    {
        match catch_unwind(AssertUnwindSafe(|| service.call(request))) {
            Ok(call) => Either::Left(call),
            Err(_) => {
                self.count();
                Either::Right(ready(Err(h2::Reason::INTERNAL_ERROR.into())))
            }
        }
    }

    /// Creates the layer.
    pub(in crate::grpc) fn layer(&self) -> CatchPanicLayer<Self> {
        CatchPanicLayer::custom(self.clone())
    }
}

impl ResponseForPanic for PanicHandler {
    type ResponseBody = Body;

    /// Drops the panic's payload, because it may hold anything.
    fn response_for_panic(&mut self, _: Box<dyn Any + Send>) -> Response<Body> {
        self.count();
        status::carry(Error::new(Reason::Panic, Progress::MaybeSent)).into_http()
    }
}

#[cfg(test)]
mod tests {
    use std::future::Ready;

    use http::{Request, Response};
    use opentelemetry::metrics::MeterProvider as _;
    use opentelemetry_sdk::metrics::SdkMeterProvider;
    use tonic::{Code, Status, body::Body};
    use tonic_types::StatusExt as _;
    use tower::{Service, ServiceBuilder, ServiceExt as _, service_fn};

    use super::PanicHandler;
    use crate::{error::Error, grpc::layer::render_errors::RenderErrors};

    async fn assert_caught<S>(service: S)
    where
        S: Service<Request<()>, Response = Response<Body>, Error = Error, Future: Send + Unpin + 'static>,
    {
        let meter = SdkMeterProvider::default().meter("test");
        let service = ServiceBuilder::new()
            .layer(RenderErrors::layer())
            .layer(PanicHandler::new(&meter).layer())
            .service(service);
        let response = service.oneshot(Request::new(())).await.unwrap();
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(status.get_error_details().error_info().unwrap().reason, "PANIC");
        assert!(!format!("{response:?}").contains("marker"));
    }

    #[tokio::test]
    async fn a_panic_becomes_a_status_without_its_payload() {
        async fn later(_: Request<()>) -> Result<Response<Body>, Error> {
            panic!("marker");
        }
        fn at_once(_: Request<()>) -> Ready<Result<Response<Body>, Error>> {
            panic!("marker");
        }
        assert_caught(service_fn(|request| Box::pin(later(request)))).await;
        assert_caught(service_fn(at_once)).await;
    }

    #[tokio::test]
    async fn a_panic_of_a_layer_around_it_resets_the_stream() {
        fn at_once(_: ()) -> Ready<Result<(), h2::Error>> {
            panic!("marker");
        }
        let panics = PanicHandler::new(&SdkMeterProvider::default().meter("test"));
        let error = panics.call(&mut service_fn(at_once), ()).await.unwrap_err();
        assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));
    }
}
