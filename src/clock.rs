//! The single entry point for time. No other module calls `now()`.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// The wall clock, for signatures and dates. Tests pass their own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// Returns the clock of the system.
    #[allow(clippy::disallowed_methods, reason = "the single entry point for time")]
    pub fn system() -> Self {
        Self(Arc::new(SystemTime::now))
    }

    /// Returns a clock that calls `time`.
    pub fn from_fn(time: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(time))
    }

    /// Returns the current time.
    pub fn now(&self) -> SystemTime {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// Returns the whole seconds between two times, negative if `to` is before `from`.
pub fn seconds_between(from: SystemTime, to: SystemTime) -> i64 {
    let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    to.duration_since(from).map_or_else(|behind| -seconds(behind.duration()), seconds)
}

/// Returns the monotonic time for deadlines. A test can pause this clock with tokio's `start_paused`.
#[allow(clippy::disallowed_methods, reason = "the single entry point for time")]
pub fn monotonic() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// Returns the monotonic time for measuring durations. Cheap, and never paused.
#[allow(clippy::disallowed_methods, reason = "the single entry point for time")]
pub fn instant() -> Instant {
    Instant::now()
}
