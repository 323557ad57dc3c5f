//! The places for calls: so many at a time, none waits for one. Neither one caller nor one project has all of them.

use opentelemetry::metrics::Meter;
use std::sync::Arc;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    caller::Caller,
    config,
    error::Error,
    shares::{Share, Shares},
    upstream::target::Target,
};

/// All places of the process.
pub(super) struct Places {
    all: Arc<Semaphore>,
    callers: Shares,
    projects: Shares,
}

/// The place of one call, given back when it is dropped.
pub(super) struct Place<'a> {
    _caller: Option<Share>,
    _place: SemaphorePermit<'a>,
}

impl Places {
    /// As many as the configuration says, and what shows how many are taken.
    pub(super) fn new(config: &config::Server, meter: &Meter) -> Self {
        let limit = config.max_in_flight;
        let all = Arc::new(Semaphore::new(limit));
        let taken = {
            let all = all.clone();
            move || limit.saturating_sub(all.available_permits())
        };
        show(meter, "scm_gateway.calls.in_flight", "Calls in flight, as server.max_in_flight counts them", taken);
        show(meter, "scm_gateway.calls.limit", "Calls that may be in flight: server.max_in_flight", move || limit);
        let callers = Shares::new(config.max_in_flight_per_caller);
        Self { all, callers, projects: Shares::new(config.max_in_flight_per_project) }
    }

    /// A place for a call of this caller. Callers that cannot be told apart share all of them.
    pub(super) fn take(&self, caller: &Caller) -> Result<Place<'_>, Error> {
        let place = self.all.try_acquire().map_err(|_| Error::overloaded("max_in_flight"))?;
        let share = caller
            .identity()
            .map(|caller| self.callers.take(caller, 1).ok_or_else(|| Error::overloaded("max_in_flight_per_caller")));
        Ok(Place { _caller: share.transpose()?, _place: place })
    }

    /// A share for a call to this project, whose SCM may hang, or whose key may be missing, while others do well.
    pub(super) fn share(&self, project: &Target) -> Result<Share, Error> {
        self.projects.take(&project.id, 1).ok_or_else(|| Error::overloaded("max_in_flight_per_project"))
    }
}

/// Sums over instances say something of both: up-down counters, not gauges.
fn show(
    meter: &Meter,
    name: &'static str,
    description: &'static str,
    number: impl Fn() -> usize + Send + Sync + 'static,
) {
    meter
        .i64_observable_up_down_counter(name)
        .with_unit("{call}")
        .with_description(description)
        .with_callback(move |counter| counter.observe(i64::try_from(number()).unwrap_or(i64::MAX), &[]))
        .build();
}
