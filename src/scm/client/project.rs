//! A project as calls see it: its endpoint, its credentials, and the limits in front of SCM.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    breaker::{Breaker, BreakerPermit},
    clock_skew::ClockSkew,
    throttle::Throttle,
};
use crate::{
    clock::Moment,
    config::{self, CredentialsSource, Endpoint, secret::Credentials},
    error::{Error, Reason},
    ops::{status, telemetry::reload_metrics::ReloadState},
    scm::{
        api::Method,
        credentials::{Lease, LiveCredentials, LockoutGuards},
    },
};

/// One project.
#[derive(Debug)]
pub struct Project {
    /// The project's id.
    pub id: Arc<str>,
    domain_id: Option<Arc<str>>,
    pub(super) endpoint: Endpoint,
    credentials_source: &'static str,
    pub(crate) reload_state: ReloadState,
    /// The last exchange for temporary credentials; `None` if the credentials are permanent.
    exchange: Mutex<Option<status::Exchange>>,
    pub(super) credentials: LiveCredentials,
    pub(super) breaker: Breaker,
    pub(super) throttle: Throttle,
    pub(super) clock_skew: ClockSkew,
}

impl Project {
    fn new(project: &config::Project, breaker: &config::Breaker, guards: &Arc<LockoutGuards>) -> Self {
        let id: Arc<str> = project.id.as_str().into();
        let is_temporary = matches!(project.credentials_source, CredentialsSource::Temporary(_));
        Self {
            id: id.clone(),
            domain_id: project.domain_id.as_deref().map(Arc::from),
            endpoint: project.endpoint.clone(),
            credentials_source: project.credentials_source.name(),
            reload_state: ReloadState::default(),
            exchange: Mutex::new(is_temporary.then(status::Exchange::default)),
            credentials: LiveCredentials::new(id, project.credentials.clone(), guards.clone()),
            breaker: Breaker::new(project.id.clone(), breaker.clone()),
            throttle: Throttle::default(),
            clock_skew: ClockSkew::default(),
        }
    }

    /// Returns the header that says whose call it is: of the project, or of the domain for paths of v3.
    pub(super) fn scope(&self, method: &Method) -> (&'static str, &str) {
        match &self.domain_id {
            Some(id) if method.template.starts_with("/v3/") => ("x-domain-id", id),
            _ => ("x-project-id", &self.id),
        }
    }

    /// Installs new credentials, with a lease if they are temporary. Accepted ones stay in use until SCM has accepted the
    /// new ones.
    pub(crate) fn install_credentials(&self, credentials: Credentials, lease: Option<Arc<Lease>>) {
        self.credentials.install(credentials, lease);
    }

    /// Stores the last exchange for temporary credentials, for the status page.
    pub(crate) fn set_exchange(&self, exchange: status::Exchange) {
        *self.exchange.lock().expect("no panic while the lock is held") = Some(exchange);
    }

    /// Removes expired credentials. Without credentials, calls wait for the next ones.
    pub fn remove_credentials(&self, credentials: &Credentials) {
        self.credentials.remove(credentials);
    }

    /// Returns a permit for a call, or the error of a cooldown or an open circuit breaker.
    pub(super) fn try_acquire(&self, method: &'static Method, now: Instant) -> Result<BreakerPermit<'_>, Error> {
        self.throttle.check(now).map_err(throttled)?;
        self.breaker.try_acquire(method, now).map_err(|wait| Error::retry_later(Reason::CircuitOpen, wait))
    }

    /// Returns the state for the status page, with what the owners of the limits know about the project.
    pub(crate) fn status(
        &self,
        moment: &Moment,
        calls: status::Calls,
        watches: status::ProjectWatches,
    ) -> status::Project {
        let (in_use, pending, credentials_circuit) = self.credentials.status(moment);
        let reload_failing = self.reload_state.is_failing();
        let exchange = *self.exchange.lock().expect("no panic while the lock is held");
        status::Project {
            id: self.id.to_string(),
            region: self.endpoint.region().map(str::to_owned),
            endpoint: self.endpoint.to_string(),
            credentials: status::Credentials {
                source: self.credentials_source,
                reload_failing,
                exchange,
                in_use,
                pending,
            },
            circuits: status::Circuits { upstream: self.breaker.status(moment), credentials: credentials_circuit },
            cooldown: self.throttle.status(moment),
            clock: self.clock_skew.status(),
            last_error: self.breaker.last_error(moment),
            calls,
            watches,
        }
    }

    /// Returns an error if a cooldown has started since [`Project::try_acquire`].
    pub(super) fn try_send(&self) -> Result<(), Error> {
        self.throttle.try_acquire().map_err(throttled)
    }
}

fn throttled(wait: Duration) -> Error {
    Error::retry_later(Reason::UpstreamThrottled, wait)
}

/// All projects, and the default one.
#[derive(Debug)]
pub struct Projects {
    by_id: BTreeMap<String, Arc<Project>>,
    default: Arc<Project>,
}

impl Projects {
    pub(super) fn new(projects: &config::Projects, config: &config::Upstream) -> Self {
        let guards = Arc::<LockoutGuards>::default();
        let new = |project: &config::Project| Arc::new(Project::new(project, &config.breaker, &guards));
        let by_id = projects.iter().map(|project| (project.id.clone(), new(project))).collect::<BTreeMap<_, _>>();
        let default = by_id[&projects.default_project().id].clone();
        Self { by_id, default }
    }

    /// Returns the project with this id.
    pub fn get(&self, id: &str) -> Option<&Arc<Project>> {
        self.by_id.get(id)
    }

    /// Returns the project of calls that name none.
    pub fn default_project(&self) -> &Arc<Project> {
        &self.default
    }

    /// Returns whether any project has credentials that are not suspended.
    pub fn has_usable_credentials(&self) -> bool {
        self.iter().any(|project| project.credentials.is_usable())
    }

    /// Returns all projects, ordered by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Project>> {
        self.by_id.values()
    }
}
