//! The locks and notifications whose users shuttle explores: circuit breaker, throttle, credentials,
//! quotas by key, the channel of watches.
//!
//! With the feature `shuttle`, tests use shuttle's, which work only inside an exploration.

#[cfg(all(test, feature = "shuttle"))]
pub(crate) use {
    explored::Notify,
    shuttle::sync::{Mutex, MutexGuard},
};
#[cfg(not(all(test, feature = "shuttle")))]
pub(crate) use {
    std::sync::{Mutex, MutexGuard},
    tokio::sync::Notify,
};

#[cfg(all(test, feature = "shuttle"))]
mod explored {
    use shuttle::thread::yield_now;
    use tokio::sync::futures::Notified;

    /// tokio's, with a point before each operation at which another task may run.
    #[derive(Debug, Default)]
    pub(crate) struct Notify(tokio::sync::Notify);

    impl Notify {
        pub(crate) fn new() -> Self {
            Self::default()
        }

        pub(crate) fn notified(&self) -> Notified<'_> {
            yield_now();
            self.0.notified()
        }

        pub(crate) fn notify_waiters(&self) {
            yield_now();
            self.0.notify_waiters();
        }
    }
}
