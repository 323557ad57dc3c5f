//! A project as calls see it: where they go, what signs them, and whether they may be made at all.

use std::{collections::BTreeMap, sync::Arc};

use super::{circuit, key::Key, throttle::Throttle};
use crate::{
    config::{self, Endpoint, Project, Projects},
    error::{Error, Progress, Reason},
    secret::Credentials,
};

/// One project.
#[derive(Debug)]
pub struct Target {
    /// The project's id.
    pub id: String,
    /// Where its calls go.
    pub(super) endpoint: Endpoint,
    pub(super) key: Key,
    pub(super) circuit: circuit::Circuit,
    throttle: Throttle,
}

impl Target {
    fn new(project: &Project, circuit: &config::Circuit) -> Self {
        Self {
            id: project.id.clone(),
            endpoint: project.endpoint.clone(),
            key: Key::new(project.credentials.clone()),
            circuit: circuit::Circuit::new(circuit.clone()),
            throttle: Throttle::default(),
        }
    }

    /// Signs with another key from now on. Without one, calls wait for the next.
    pub fn replace_key(&self, credentials: Option<Credentials>) {
        self.key.replace(credentials);
    }

    /// Leave to make a call. Nothing is sent without it.
    pub(super) fn admit(&self) -> Result<circuit::Pass<'_>, Error> {
        let refuse = |reason| move |wait| Error { retry_after: Some(wait), ..Error::new(reason, Progress::NotSent) };
        self.throttle.admit().map_err(refuse(Reason::UpstreamThrottled))?;
        self.circuit.admit().map_err(refuse(Reason::CircuitOpen))
    }

    /// Learns from a call that was made.
    pub(super) fn settle<R>(&self, pass: circuit::Pass<'_>, result: &Result<R, Error>) {
        if let Err(error) = result
            && error.reason == Reason::UpstreamThrottled
        {
            self.throttle.hold(error.retry_after);
        }
        pass.settle(circuit::Verdict::of(result));
    }
}

/// All projects, and the default one.
#[derive(Debug)]
pub struct Targets {
    by_id: BTreeMap<String, Arc<Target>>,
    default: Arc<Target>,
}

impl Targets {
    pub(super) fn new(projects: &Projects, circuit: &config::Circuit) -> Self {
        let targets = projects.iter().map(|project| (project.id.clone(), Arc::new(Target::new(project, circuit))));
        let by_id = BTreeMap::from_iter(targets);
        let default = by_id[&projects.default_project().id].clone();
        Self { by_id, default }
    }

    /// The project with this id.
    pub fn get(&self, id: &str) -> Option<&Arc<Target>> {
        self.by_id.get(id)
    }

    /// The project of calls that name none.
    pub fn default_target(&self) -> &Arc<Target> {
        &self.default
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.by_id.values()
    }
}
