//! Carries out one call of any RPC: authorize, limit, validate, translate, call SCM. The only place where the steps meet.

use std::{collections::BTreeSet, future::poll_fn, sync::Arc, task::Poll};

use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    auth::{AccessPolicy, Caller},
    context::{CallContext, Draining, Resource, Retried, Streamed},
    dry_run,
    limit::{concurrency::ConcurrencyLimit, watches::WatchPermit},
    status,
};
use crate::{
    clock::Moment,
    config::Config,
    error::{Error, Progress, Reason},
    ops::{status as page, telemetry::Telemetry},
    scm::{
        api::{self, Decoded, RestMethod},
        client::{CallOptions, Upstream, project::Project},
    },
    validate::{self, text::is_id},
};

mod watch_certificate;

use watch_certificate::Watches;

/// The responses of an RPC that streams.
type Responses<R> = BoxStream<'static, Result<R, Status>>;

/// The service behind every RPC of the proto. `build.rs` generates its tonic side.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    outbound: Arc<Outbound>,
    /// The full names of the methods that this instance serves.
    enabled: BTreeSet<&'static str>,
    policy: Arc<AccessPolicy>,
    watches: Watches,
    shutdown: CancellationToken,
}

/// The client of SCM, behind the limits of calls.
struct Outbound {
    upstream: Upstream,
    limit: ConcurrencyLimit,
}

impl Gateway {
    /// Creates the service. Cancelling `shutdown` ends the calls in flight.
    pub fn new(
        upstream: Upstream,
        policy: Arc<AccessPolicy>,
        config: &Config,
        telemetry: &Arc<Telemetry>,
        shutdown: CancellationToken,
    ) -> Self {
        let projects = upstream.projects().iter().map(|project| project.id.clone());
        let limit = ConcurrencyLimit::new(&config.server, projects, &telemetry.meter);
        let enabled = config.server.methods.clone();
        let outbound = Arc::new(Outbound { upstream, limit });
        let watches = Watches::new(outbound.clone(), config, telemetry);
        Self(Arc::new(Inner { outbound, enabled, policy, watches, shutdown }))
    }

    /// Returns the calls, the watches and the projects, for the status page.
    pub fn status(&self, moment: &Moment) -> (page::Calls, page::Watches, Vec<page::Project>) {
        let Inner { outbound, watches, .. } = &*self.0;
        let of_project = |project: &Arc<Project>| {
            project.status(moment, outbound.limit.project_status(&project.id), watches.project_status(&project.id))
        };
        let projects = outbound.upstream.projects().iter().map(of_project).collect();
        (outbound.limit.status(), watches.status(), projects)
    }

    /// Carries out a call. Every generated method of the tonic service is this one line.
    async fn call<M: RestMethod>(&self, request: Request<M::Request>) -> Result<Response<M::Reply>, Status> {
        let (_, extensions, message) = request.into_parts();
        let call = CallContext::of(&extensions);
        let result = tokio::select! {
            biased;
            // An attempt in flight knows what its end means. The other branch ends calls that wait.
            result = self.respond::<M>(message, call), if !self.0.shutdown.is_cancelled() => result,
            () = self.0.shutdown.cancelled() => Err(Error::new(Reason::ShuttingDown, Progress::NotSent)),
        };
        result.map_err(status::carry)
    }

    /// Opens the responses of an RPC that streams. Every generated method of such an RPC is this one line. The layers
    /// follow the stream to its end, where `open` leaves an error in the context of the call. `open` returns `None` for a
    /// dry run.
    fn stream<T, R: Send + 'static>(
        &self,
        request: Request<T>,
        open: impl FnOnce(&Self, T, &Arc<CallContext>, Draining) -> Result<Option<(Responses<R>, WatchPermit)>, Error>,
    ) -> Result<Response<Responses<R>>, Status> {
        let (_, extensions, message) = request.into_parts();
        let call = CallContext::of(&extensions);
        let draining = extensions.get::<Draining>().expect("the requests of streams have this extension");
        let opened = open(self, message, call, draining.clone()).map_err(status::carry)?;
        let Some((responses, permit)) = opened else { return Ok(dry_run::response(stream::empty().boxed())) };
        let mut response = Response::new(responses);
        response.extensions_mut().insert(Streamed::new(call.clone(), permit));
        Ok(response)
    }

    /// A call takes its permit only here, once its message is complete, so that an incomplete request holds none.
    async fn respond<M: RestMethod>(
        &self,
        mut message: M::Request,
        call: &CallContext,
    ) -> Result<Response<M::Reply>, Error> {
        let project = self.project(M::project_id(&mut message));
        let project = self.authorize(M::RPC, call, project, M::resource(&message))?;
        if call.dry_run().requested()? {
            validate::check(message)?;
            return Ok(dry_run::response(M::Reply::default()));
        }
        let outbound = &self.0.outbound;
        let deadline = call.deadline(outbound.upstream.timeout());
        let options = CallOptions { deadline, parent: call.trace() };
        let mut decoded = outbound.call::<M>(message, project, call.caller(), &options).await?;
        if decoded.attempts > 1 {
            call.set_retried(Retried { attempts: decoded.attempts, http_status: decoded.http_status });
        }
        let request_id = decoded.request_id.take();
        let mut response = Response::new(decoded.into_reply());
        status::insert_request_id(response.metadata_mut(), request_id);
        Ok(response)
    }

    /// Returns the project if the instance serves the method, and the caller may call it for this project. Stores what the
    /// call names.
    fn authorize<'a>(
        &self,
        rpc: &'static str,
        call: &CallContext,
        project: Option<&'a Arc<Project>>,
        resource: Option<(&'static str, &str)>,
    ) -> Result<&'a Arc<Project>, Error> {
        let Inner { enabled, policy, .. } = &*self.0;
        call.set_resource(Resource {
            project_id: project.map(|project| project.id.clone()),
            id: resource.filter(|(_, id)| is_id(id)).map(|(name, id)| (name, id.into())),
        });
        let rejected = |reason| Error::new(reason, Progress::NotSent);
        if !enabled.contains(rpc) {
            return Err(rejected(Reason::MethodDisabled));
        }
        policy.authorize_method(call.caller(), rpc).map_err(rejected)?;
        let project = project.ok_or_else(|| rejected(Reason::CallerNotAllowed))?;
        policy.authorize_project(call.caller(), rpc, &project.id).map_err(rejected)?;
        Ok(project)
    }

    /// Returns the project with this id. An empty id is replaced by that of the default project.
    fn project(&self, id: &mut String) -> Option<&Arc<Project>> {
        let projects = self.0.outbound.upstream.projects();
        if id.is_empty() {
            projects.default_project().id.as_ref().clone_into(id);
        }
        projects.get(id)
    }
}

impl Outbound {
    /// Calls SCM with the permits of the call: limit, validate, translate, send.
    async fn call<M: RestMethod>(
        &self,
        message: M::Request,
        project: &Arc<Project>,
        caller: &Caller,
        options: &CallOptions<'_>,
    ) -> Result<Decoded, Error> {
        let _call_permit = self.limit.try_acquire(caller)?;
        let _project_permit = self.limit.try_acquire_project(&project.id)?;
        let checked = validate::check(message)?;
        let request = api::translate::<M>(&checked);
        drop(checked); // a list of small messages takes many times the memory of its JSON
        yield_once().await;
        self.upstream.call(&request, project, options).await
    }
}

/// Yields once, so that hyper can notice a RST_STREAM that arrived together with the request. Otherwise a cancelled call
/// would still be sent. `tokio::task::yield_now` would poll the I/O driver first.
async fn yield_once() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

include!(concat!(env!("OUT_DIR"), "/services.rs"));
