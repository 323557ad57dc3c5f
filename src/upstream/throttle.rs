//! Holds calls back that SCM would throttle: after a 429, for as long as it says.

use std::{sync::Mutex, time::Duration};

use tokio::time::Instant;

use crate::clock;

/// Where SCM does not say how long to wait. Its FAQ advises seconds.
const DEFAULT: Duration = Duration::from_secs(1);

/// However long SCM says to wait.
const MOST: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<Option<Instant>>);

impl Throttle {
    /// How long no call may be made.
    pub(super) fn admit(&self) -> Result<(), Duration> {
        let until = *self.0.lock().expect("nothing panics while it holds the time");
        match until.map(|until| until.saturating_duration_since(clock::steady())) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(()),
        }
    }

    /// SCM throttles.
    pub(super) fn hold(&self, retry_after: Option<Duration>) {
        let until = clock::steady() + retry_after.unwrap_or(DEFAULT).min(MOST);
        let mut held = self.0.lock().expect("nothing panics while it holds the time");
        *held = held.max(Some(until));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::Throttle;

    #[tokio::test(start_paused = true)]
    async fn calls_are_held_back_as_long_as_scm_says() {
        for (said, held) in [(None, 1), (Some(7), 7), (Some(86_400), 60)] {
            let throttle = Throttle::default();
            assert_eq!(throttle.admit(), Ok(()));
            throttle.hold(said.map(Duration::from_secs));
            assert_eq!(throttle.admit(), Err(Duration::from_secs(held)));
            throttle.hold(None);
            advance(Duration::from_secs(held) - Duration::from_millis(1)).await;
            assert!(throttle.admit().is_err(), "a shorter wait does not end a longer one");
            advance(Duration::from_millis(1)).await;
            assert_eq!(throttle.admit(), Ok(()));
        }
    }
}
