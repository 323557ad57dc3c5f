//! The limit of open watches, of the process and of one caller. Watches over a limit are rejected at once.

use std::sync::Arc;

use opentelemetry::metrics::Meter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    concurrency::register,
    keyed_quota::{KeyedPermit, KeyedQuota},
};
use crate::{config, error::Error, grpc::auth::Caller, ops::status};

/// The limit of the process.
pub(in crate::grpc) struct WatchLimit {
    total: Arc<Semaphore>,
    max: usize,
    callers: KeyedQuota,
}

/// A permit for one watch, returned on drop.
pub(in crate::grpc) struct WatchPermit {
    _total: OwnedSemaphorePermit,
    _caller: Option<KeyedPermit>,
}

impl WatchLimit {
    /// Creates the limit as configured, and registers its metrics.
    pub(in crate::grpc) fn new(config: &config::Watch, meter: &Meter) -> Self {
        let max = config.max;
        let total = Arc::new(Semaphore::new(max));
        let open = {
            let total = total.clone();
            move || max.saturating_sub(total.available_permits())
        };
        register(meter, "scm_gateway.watches.open", "{watch}", "Open watches, as watch.max counts them", open);
        register(meter, "scm_gateway.watches.limit", "{watch}", "Watches that may be open: watch.max", move || max);
        Self { total, max, callers: KeyedQuota::new(config.max_per_caller) }
    }

    /// Returns the open watches, for the status page.
    pub(in crate::grpc) fn status(&self) -> status::Watches {
        status::Watches { open: self.max.saturating_sub(self.total.available_permits()), max: self.max }
    }

    /// Returns a permit for a watch of this caller. Callers without an identity share the whole limit.
    pub(in crate::grpc) fn try_acquire(&self, caller: &Caller) -> Result<WatchPermit, Error> {
        let total = self.total.clone().try_acquire_owned().map_err(|_| Error::overloaded("watch.max"))?;
        let caller = caller.identity().map(|caller| {
            self.callers.try_acquire(caller, 1).ok_or_else(|| Error::overloaded("share of one caller in watch.max"))
        });
        Ok(WatchPermit { _total: total, _caller: caller.transpose()? })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use opentelemetry::metrics::MeterProvider as _;
    use opentelemetry_sdk::metrics::SdkMeterProvider;

    use super::WatchLimit;
    use crate::{config, grpc::auth::Caller};

    #[test]
    fn watches_over_a_limit_are_rejected() {
        let config = config::Watch { interval: Duration::from_secs(30), max: 4, max_per_caller: 2 };
        let limit = WatchLimit::new(&config, &SdkMeterProvider::default().meter("test"));
        let [a, b] = ["a", "b"].map(|name| Caller::Identified(name.into()));
        let cause = |caller: &Caller| limit.try_acquire(caller).err().and_then(|error| error.cause);
        let mut permits: Vec<_> = [&a, &a, &b].map(|caller| limit.try_acquire(caller).unwrap()).into();
        assert_eq!(cause(&a), Some("share of one caller in watch.max"));
        permits.push(limit.try_acquire(&Caller::default()).expect("a caller without identity has no share"));
        assert_eq!(cause(&b), Some("watch.max"));
        permits.clear();
        assert_eq!(cause(&a), None, "permits are returned");
    }
}
