//! The one door through which time comes in: nothing else calls `now()`.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// The calendar, for signatures and dates. Tests give their own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// The machine's clock.
    #[allow(clippy::disallowed_methods, reason = "this is the door")]
    pub fn system() -> Self {
        Self(Arc::new(SystemTime::now))
    }

    /// A clock that shows what `time` returns.
    pub fn from_fn(time: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(time))
    }

    /// The time of day, UTC.
    pub fn now(&self) -> SystemTime {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// Whole seconds from one time of day to another, negative if that is earlier.
pub fn seconds_between(from: SystemTime, to: SystemTime) -> i64 {
    let whole = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    to.duration_since(from).map_or_else(|behind| -whole(behind.duration()), whole)
}

/// The monotonic time, for deadlines: stands still where a test pauses the runtime's clock.
#[allow(clippy::disallowed_methods, reason = "this is the door")]
pub fn monotonic() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// The monotonic time for measuring durations: cheap, and never paused.
#[allow(clippy::disallowed_methods, reason = "this is the door")]
pub fn instant() -> Instant {
    Instant::now()
}
