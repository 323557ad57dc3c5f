//! The single entry point for time. No other module calls `now()`.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
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

/// A moment on both clocks, to convert monotonic times into times of the wall clock.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The wall clock.
    pub wall: SystemTime,
    /// The monotonic clock.
    pub monotonic: tokio::time::Instant,
}

impl Moment {
    /// Returns the current moment.
    pub fn now(clock: &Clock) -> Self {
        Self { wall: clock.now(), monotonic: monotonic() }
    }

    /// Returns the wall clock's time of a monotonic time, in the past or in the future.
    pub fn wall_time(&self, time: tokio::time::Instant) -> SystemTime {
        let converted = match time.checked_duration_since(self.monotonic) {
            Some(ahead) => self.wall.checked_add(ahead),
            None => self.wall.checked_sub(self.monotonic - time),
        };
        converted.unwrap_or(self.wall)
    }
}

/// Returns the whole seconds between two times, negative if `to` is before `from`.
pub fn seconds_between(from: SystemTime, to: SystemTime) -> i64 {
    let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    to.duration_since(from).map_or_else(|behind| -seconds(behind.duration()), seconds)
}

/// Returns the monotonic time, for deadlines and durations. A test can pause this clock with tokio's `start_paused`.
#[allow(clippy::disallowed_methods, reason = "the single entry point for time")]
pub fn monotonic() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{Clock, Moment};

    #[test]
    fn monotonic_times_are_converted_in_both_directions() {
        let moment = Moment::now(&Clock::system());
        let minute = Duration::from_secs(60);
        assert_eq!(moment.wall_time(moment.monotonic), moment.wall);
        assert_eq!(moment.wall_time(moment.monotonic + minute), moment.wall + minute);
        let later = Moment { monotonic: moment.monotonic + minute, ..moment };
        assert_eq!(later.wall_time(moment.monotonic), moment.wall - minute);
        let first = Moment { wall: SystemTime::UNIX_EPOCH, ..later };
        assert_eq!(first.wall_time(moment.monotonic), SystemTime::UNIX_EPOCH - minute);
    }
}
