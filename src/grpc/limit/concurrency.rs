//! The concurrency limit: how many calls are in flight in the process, of one caller and to one project. Calls over a limit
//! are shed at once.

use std::{collections::BTreeMap, sync::Arc};

use opentelemetry::metrics::Meter;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::keyed_quota::{KeyedPermit, KeyedQuota};
use crate::{config, error::Error, grpc::auth::Caller, ops::status::Calls};

/// The limits of the process.
pub(in crate::grpc) struct ConcurrencyLimit {
    total: Arc<Semaphore>,
    max: usize,
    callers: KeyedQuota,
    projects: BTreeMap<Arc<str>, Semaphore>,
    max_per_project: usize,
}

/// A permit for one call, returned on drop.
pub(in crate::grpc) struct CallPermit<'a> {
    _total: SemaphorePermit<'a>,
    _caller: Option<KeyedPermit>,
}

impl ConcurrencyLimit {
    /// Creates the limits as configured, for these projects, and registers their metrics.
    pub(in crate::grpc) fn new(
        config: &config::Server,
        projects: impl Iterator<Item = Arc<str>>,
        meter: &Meter,
    ) -> Self {
        let max = config.max_in_flight;
        let total = Arc::new(Semaphore::new(max));
        let in_flight = {
            let total = total.clone();
            move || max.saturating_sub(total.available_permits())
        };
        register(
            meter,
            "scm_gateway.calls.in_flight",
            "{call}",
            "Calls in flight, as server.max_in_flight counts them",
            in_flight,
        );
        register(
            meter,
            "scm_gateway.calls.limit",
            "{call}",
            "Calls that may be in flight: server.max_in_flight",
            move || max,
        );
        Self {
            total,
            max,
            callers: KeyedQuota::new(config.max_in_flight_per_caller),
            projects: projects.map(|id| (id, Semaphore::new(config.max_in_flight_per_project))).collect(),
            max_per_project: config.max_in_flight_per_project,
        }
    }

    /// Returns the calls in flight of all projects, for the status page.
    pub(in crate::grpc) fn status(&self) -> Calls {
        Calls { in_flight: self.max.saturating_sub(self.total.available_permits()), max: self.max }
    }

    /// Returns the calls in flight of one project, for the status page.
    pub(in crate::grpc) fn project_status(&self, id: &str) -> Calls {
        let max = self.max_per_project;
        let free = self.projects.get(id).map_or(max, Semaphore::available_permits);
        Calls { in_flight: max.saturating_sub(free), max }
    }

    /// Returns a permit for a call of this caller. Callers without an identity share the whole limit.
    pub(in crate::grpc) fn try_acquire(&self, caller: &Caller) -> Result<CallPermit<'_>, Error> {
        let total = self.total.try_acquire().map_err(|_| Error::overloaded("max_in_flight"))?;
        let caller = caller.identity().map(|caller| {
            self.callers.try_acquire(caller, 1).ok_or_else(|| Error::overloaded("max_in_flight_per_caller"))
        });
        Ok(CallPermit { _total: total, _caller: caller.transpose()? })
    }

    /// Returns a permit for a call to this project, so that a project whose SCM hangs leaves permits for the others.
    pub(in crate::grpc) fn try_acquire_project(&self, id: &str) -> Result<SemaphorePermit<'_>, Error> {
        let project = self.projects.get(id).expect("the limits were made for all projects");
        project.try_acquire().map_err(|_| Error::overloaded("max_in_flight_per_project"))
    }
}

/// Registers an up-down counter, not a gauge, because sums over instances have a meaning.
pub(super) fn register(
    meter: &Meter,
    name: &'static str,
    unit: &'static str,
    description: &'static str,
    value: impl Fn() -> usize + Send + Sync + 'static,
) {
    meter
        .i64_observable_up_down_counter(name)
        .with_unit(unit)
        .with_description(description)
        .with_callback(move |counter| counter.observe(i64::try_from(value()).unwrap_or(i64::MAX), &[]))
        .build();
}
