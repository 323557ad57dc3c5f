//! A project as calls see it: where they go, what signs them, and whether they may be made at all.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    circuit,
    key::{Guards, Key},
    skew::Skew,
    throttle::Throttle,
};
use crate::{
    config::{self, Endpoint, Project, Projects},
    error::{Error, Reason},
    secret::Credentials,
};

/// One project.
#[derive(Debug)]
pub struct Target {
    /// The project's id.
    pub id: Arc<str>,
    /// Where its calls go.
    pub(super) endpoint: Endpoint,
    pub(super) key: Key,
    pub(super) circuit: circuit::Circuit,
    pub(super) throttle: Throttle,
    pub(super) skew: Skew,
}

impl Target {
    fn new(project: &Project, circuit: &config::Circuit, guards: &Arc<Guards>) -> Self {
        Self {
            id: project.id.as_str().into(),
            endpoint: project.endpoint.clone(),
            key: Key::new(project.credentials.clone(), guards.clone()),
            circuit: circuit::Circuit::new(project.id.clone(), circuit.clone()),
            throttle: Throttle::default(),
            skew: Skew::default(),
        }
    }

    /// Signs with another key from now on. Without one, calls wait for the next.
    pub fn replace_key(&self, credentials: Option<Credentials>) {
        self.key.replace(credentials);
    }

    /// Leave to make a call. Nothing is sent without it.
    pub(super) fn admit(&self) -> Result<circuit::Pass<'_>, Error> {
        self.throttle.look().map_err(held_back)?;
        self.circuit.admit().map_err(|wait| Error::held_back(Reason::CircuitOpen, wait))
    }

    /// Leave to send a request, where SCM has not asked to be left alone.
    pub(super) fn send(&self) -> Result<(), Error> {
        self.throttle.admit().map_err(held_back)
    }
}

fn held_back(wait: Duration) -> Error {
    Error::held_back(Reason::UpstreamThrottled, wait)
}

/// All projects, and the default one.
#[derive(Debug)]
pub struct Targets {
    by_id: BTreeMap<String, Arc<Target>>,
    default: Arc<Target>,
}

impl Targets {
    pub(super) fn new(projects: &Projects, circuit: &config::Circuit) -> Self {
        let guards = Arc::<Guards>::default();
        let targets =
            projects.iter().map(|project| (project.id.clone(), Arc::new(Target::new(project, circuit, &guards))));
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

    /// Whether any project has a key that is not refused at the moment.
    pub fn has_usable_key(&self) -> bool {
        self.iter().any(|target| target.key.is_usable())
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.by_id.values()
    }
}
