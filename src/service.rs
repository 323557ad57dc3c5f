//! One call of any RPC: project, checks, SCM, reply. The only place where the steps meet.

use std::{future::poll_fn, sync::Arc, task::Poll};

use opentelemetry::metrics::Meter;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    call::{Call, Subject},
    caller::Callers,
    config,
    error::{Error, Progress, Reason},
    rest::{self, RestMethod, decode::Decoded},
    status,
    upstream::{Upstream, target::Target},
    validate::{self, text::is_id},
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
        Self(Arc::new(Inner { upstream, callers, places: Places::new(config, meter), stop }))
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
        match answer {
            Ok(decoded) => {
                call.succeeded(decoded.request_id.as_deref());
                Ok(reply(decoded))
            }
            Err(error) => Err(call.fail(error)),
        }
    }

    /// First caller and method, then a place, then the project and its share, then the fields, then SCM. A call takes its place now
    /// that its message has come whole: one that is never finished takes none.
    async fn answer<M: RestMethod>(&self, mut message: M::Request, call: &Call) -> Result<Decoded<M::Reply>, Error> {
        let project = self.project(M::project_id(&mut message));
        call.is_about(Subject {
            project_id: project.map(|project| project.id.clone()),
            cert_id: M::cert_id(&message).filter(|id| is_id(id)).map(str::to_owned),
        });
        let refused = |reason| Error::new(reason, Progress::NotSent);
        self.0.callers.may_call(call.caller(), M::RPC).map_err(refused)?;
        let _place = self.0.places.take(call.caller())?;
        let project = project.ok_or_else(|| refused(Reason::CallerNotAllowed))?;
        self.0.callers.may_use(call.caller(), M::RPC, &project.id).map_err(refused)?;
        let _share = self.0.places.share(project)?;
        let checked = validate::check(message)?;
        let request = rest::translate::<M>(&checked);
        // hyper looks for a reset whenever a call waits: one that was given up as it came goes no further. tokio's own
        // yield would look at all sockets before it goes on.
        let mut looked = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut looked, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        self.0.upstream.call::<M>(&request, project, call).await
    }

    /// The project that the caller names, by default the default one, whose id then stands in the message.
    fn project(&self, id: &mut String) -> Option<&Target> {
        let targets = self.0.upstream.targets();
        if id.is_empty() {
            targets.default_target().id.as_ref().clone_into(id);
        }
        targets.get(id).map(|target| &**target)
    }
}

fn reply<R>(decoded: Decoded<R>) -> Response<R> {
    let mut response = Response::new(decoded.reply);
    status::tell_request_id(response.metadata_mut(), decoded.request_id);
    response
}
