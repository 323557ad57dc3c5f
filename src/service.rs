//! One call of any RPC: project, checks, SCM, reply. The only place where the steps meet.

use std::sync::Arc;

use opentelemetry::metrics::Meter;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    call::Call,
    caller::Callers,
    config,
    error::{Error, Progress, Reason},
    rest::{self, RestMethod, decode::Decoded},
    status,
    upstream::{Upstream, target::Target},
    validate,
};

mod places;

use places::Places;

/// The service behind every RPC of the proto; `build.rs` prints its tonic side.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    upstream: Upstream,
    callers: Arc<Callers>,
    places: Places,
    stop: CancellationToken,
}

impl Gateway {
    /// A service in front of this upstream, with the places that `config` says. When `stop` is cancelled, calls still running
    /// are answered at once.
    pub fn new(
        upstream: Upstream,
        callers: Arc<Callers>,
        config: &config::Server,
        meter: &Meter,
        stop: CancellationToken,
    ) -> Self {
        let places = Places::new(config.max_in_flight, config.max_in_flight_per_caller, meter);
        Self(Arc::new(Inner { upstream, callers, places, stop }))
    }

    /// The one line of every RPC.
    pub(crate) async fn call<M: RestMethod>(&self, request: Request<M::Request>) -> Result<Response<M::Reply>, Status> {
        let (_, extensions, message) = request.into_parts();
        let call = extensions.get::<Arc<Call>>().expect("the edge puts a call into every request");
        let stopped = || Err(Error::new(Reason::ShuttingDown, Progress::NotSent));
        let answer = tokio::select! {
            biased;
            // An attempt under way knows better what its end means; this ends what waits.
            answer = self.answer::<M>(message, call), if !self.0.stop.is_cancelled() => answer,
            () = self.0.stop.cancelled() => stopped(),
        };
        answer.map(reply).map_err(|error| {
            call.failed(&error);
            status::render(error)
        })
    }

    /// First caller and method, then a place, then the project, then the fields, then SCM. A call takes its place now
    /// that its message has come whole: one that is never finished takes none.
    async fn answer<M: RestMethod>(&self, mut message: M::Request, call: &Call) -> Result<Decoded<M::Reply>, Error> {
        let not_allowed = |reason| Error::new(reason, Progress::NotSent);
        self.0.callers.may_call(call.caller(), M::RPC).map_err(not_allowed)?;
        let _place = self.0.places.take(call.caller())?;
        let target = self.target(M::project_id(&mut message))?;
        self.0.callers.may_use(call.caller(), M::RPC, &target.id).map_err(not_allowed)?;
        let checked = validate::check(message)?;
        let request = rest::translate::<M>(&checked);
        let answer = self.0.upstream.call::<M>(&request, target, call).await;
        answer.map_err(|error| Error { project_id: Some(target.id.clone()), ..error })
    }

    /// The project that the caller names, by default the default one, whose id then stands in the message.
    fn target(&self, id: &mut String) -> Result<&Target, Error> {
        let targets = self.0.upstream.targets();
        if id.is_empty() {
            let target = targets.default_target();
            id.clone_from(&target.id);
            return Ok(target);
        }
        targets.get(id).map(|target| &**target).ok_or_else(|| Error::new(Reason::CallerNotAllowed, Progress::NotSent))
    }
}

fn reply<R>(decoded: Decoded<R>) -> Response<R> {
    let mut response = Response::new(decoded.reply);
    status::tell_request_id(response.metadata_mut(), decoded.request_id);
    response
}
