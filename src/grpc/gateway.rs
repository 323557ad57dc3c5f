//! Carries out one call of any RPC: authorize, limit, validate, translate, call SCM. The only place where the steps meet.

use std::{collections::BTreeSet, future::poll_fn, sync::Arc, task::Poll};

use opentelemetry::metrics::Meter;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    auth::AccessPolicy,
    context::{CallContext, Resource},
    limit::concurrency::ConcurrencyLimit,
    status,
};
use crate::{
    config,
    error::{Error, Progress, Reason},
    scm::{
        api::{self, RestMethod},
        client::{CallOptions, Upstream, project::Project},
    },
    validate::{self, text::is_id},
};

/// The service behind every RPC of the proto. `build.rs` generates its tonic side.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    upstream: Upstream,
    /// The full names of the methods that this instance serves.
    enabled: BTreeSet<&'static str>,
    policy: Arc<AccessPolicy>,
    limit: ConcurrencyLimit,
    shutdown: CancellationToken,
}

impl Gateway {
    /// Creates the service. Cancelling `shutdown` ends the calls in flight.
    pub fn new(
        upstream: Upstream,
        policy: Arc<AccessPolicy>,
        config: &config::Server,
        meter: &Meter,
        shutdown: CancellationToken,
    ) -> Self {
        let projects = upstream.projects().iter().map(|project| project.id.clone());
        let limit = ConcurrencyLimit::new(config, projects, meter);
        let enabled = config.methods.clone();
        Self(Arc::new(Inner { upstream, enabled, policy, limit, shutdown }))
    }

    /// Carries out a call. Every generated method of the tonic service is this one line.
    async fn call<M: RestMethod>(&self, request: Request<M::Request>) -> Result<Response<M::Reply>, Status> {
        let (_, extensions, message) = request.into_parts();
        let call = extensions.get::<Arc<CallContext>>().expect("the trace layer adds a context to every request");
        let result = tokio::select! {
            biased;
            // An attempt in flight knows what its end means. The other branch ends calls that wait.
            result = self.respond::<M>(message, call), if !self.0.shutdown.is_cancelled() => result,
            () = self.0.shutdown.cancelled() => Err(Error::new(Reason::ShuttingDown, Progress::NotSent)),
        };
        result.map_err(status::carry)
    }

    /// A call takes its permit only here, once its message is complete, so that an incomplete request holds none.
    async fn respond<M: RestMethod>(
        &self,
        mut message: M::Request,
        call: &CallContext,
    ) -> Result<Response<M::Reply>, Error> {
        let Inner { upstream, enabled, policy, limit, .. } = &*self.0;
        let project = self.project(M::project_id(&mut message));
        call.set_resource(Resource {
            project_id: project.map(|project| project.id.clone()),
            id: M::resource(&message).filter(|(_, id)| is_id(id)).map(|(name, id)| (name, id.to_owned())),
        });
        let rejected = |reason| Error::new(reason, Progress::NotSent);
        if !enabled.contains(M::RPC) {
            return Err(rejected(Reason::MethodDisabled));
        }
        policy.authorize_method(call.caller(), M::RPC).map_err(rejected)?;
        let _call_permit = limit.try_acquire(call.caller())?;
        let project = project.ok_or_else(|| rejected(Reason::CallerNotAllowed))?;
        policy.authorize_project(call.caller(), M::RPC, &project.id).map_err(rejected)?;
        let _project_permit = limit.try_acquire_project(&project.id)?;
        let checked = validate::check(message)?;
        let request = api::translate::<M>(&checked);
        yield_once().await;
        let options = CallOptions { deadline: call.deadline(upstream.timeout()), parent: call.trace() };
        let (reply, request_id) = upstream.call::<M>(&request, project, &options).await?;
        let mut response = Response::new(reply);
        status::insert_request_id(response.metadata_mut(), request_id);
        Ok(response)
    }

    /// Returns the project with this id. An empty id is replaced by that of the default project.
    fn project(&self, id: &mut String) -> Option<&Arc<Project>> {
        let projects = self.0.upstream.projects();
        if id.is_empty() {
            projects.default_project().id.as_ref().clone_into(id);
        }
        projects.get(id)
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
