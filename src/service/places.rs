//! The places for calls: so many at a time, none waits for one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use opentelemetry::metrics::Meter;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{caller::Caller, error::Error};

/// All places of the process.
pub(super) struct Places {
    all: Arc<Semaphore>,
    per_caller: usize,
    /// Of the callers that have any.
    taken: Mutex<HashMap<Arc<str>, usize>>,
}

/// The place of one call, given back when it is dropped.
pub(super) struct Place<'a> {
    places: &'a Places,
    caller: Option<Arc<str>>,
    _place: SemaphorePermit<'a>,
}

impl Places {
    /// So many, of which one caller has so many, and what shows how many are taken.
    pub(super) fn new(limit: usize, per_caller: usize, meter: &Meter) -> Self {
        let all = Arc::new(Semaphore::new(limit));
        let taken = {
            let all = all.clone();
            move || limit.saturating_sub(all.available_permits())
        };
        show(meter, "scm_gateway.calls.in_flight", "Calls in flight, as server.max_in_flight counts them", taken);
        show(meter, "scm_gateway.calls.limit", "Calls that may be in flight: server.max_in_flight", move || limit);
        Self { all, per_caller, taken: Mutex::default() }
    }

    /// A place for a call of this caller. Callers that cannot be told apart share all of them.
    pub(super) fn take(&self, caller: &Caller) -> Result<Place<'_>, Error> {
        let place = self.all.try_acquire().map_err(|_| Error::overloaded())?;
        let caller = caller.identity().cloned();
        if let Some(caller) = &caller {
            let mut all_taken = self.taken();
            let taken = all_taken.entry(caller.clone()).or_default();
            if *taken >= self.per_caller {
                return Err(Error::overloaded());
            }
            *taken += 1;
        }
        Ok(Place { places: self, caller, _place: place })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<Arc<str>, usize>> {
        self.taken.lock().expect("nothing panics while it counts")
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(caller) = &self.caller else { return };
        let mut all_taken = self.places.taken();
        if let Some(taken) = all_taken.get_mut(caller) {
            *taken -= 1;
            if *taken == 0 {
                all_taken.remove(caller);
            }
        }
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

#[cfg(test)]
mod tests {
    use opentelemetry::metrics::MeterProvider as _;

    use super::Places;
    use crate::{caller::Callers, error::Reason};

    #[test]
    fn a_caller_has_its_share_and_the_others_have_the_rest() {
        let meter = opentelemetry_sdk::metrics::SdkMeterProvider::default().meter("test");
        let (places, callers) = (Places::new(4, 2, &meter), Callers::default());
        let [a, b, c] = ["a", "b", "c"].map(|name| callers.by_names(&[name]));
        let mut of_a = vec![places.take(&a).unwrap(), places.take(&a).unwrap()];
        assert_eq!(places.take(&a).err().unwrap().reason, Reason::Overloaded);
        let of_b = [places.take(&b).unwrap(), places.take(&b).unwrap()];
        assert_eq!(places.take(&c).err().unwrap().reason, Reason::Overloaded, "all are taken");
        of_a.pop();
        assert!(places.take(&c).is_ok());
        of_a.push(places.take(&a).unwrap());
        drop((of_a, of_b));
        assert!(places.taken().is_empty(), "nobody is remembered without a call");
        let nobody = callers.by_names::<&str>(&[]);
        let _four = [(); 4].map(|()| places.take(&nobody).unwrap());
        assert!(places.take(&nobody).is_err());
    }
}
