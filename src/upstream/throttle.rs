//! Holds calls back that SCM would throttle. After a 429 none is sent for as long as SCM says, or, as it hardly ever
//! does, for a second, which doubles from one 429 to the next. Then one call looks, and the others follow when it was
//! served: they waited for the same moment and would all be refused together.

use std::{sync::Mutex, time::Duration};

use tokio::time::Instant;

use crate::{chance, clock};

/// Where SCM does not say how long to wait: at first, and at most. Its FAQ advises seconds, its quotas count by the
/// minute.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(4);

/// However long SCM says to wait.
const MOST: Duration = Duration::from_secs(60);

/// How long a call that looks has for itself.
const PROBE: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<Option<Held>>);

#[derive(Debug, Clone, Copy)]
struct Held {
    /// Until then no call is sent, or none but the one that looks.
    until: Instant,
    /// How long the next 429 holds calls back.
    next: Duration,
    probing: bool,
}

impl Throttle {
    /// How long no call may be made.
    pub(super) fn look(&self) -> Result<(), Duration> {
        self.with(|held, now| wait(*held, now))
    }

    /// Leave to send a request, or how long there is none.
    pub(super) fn admit(&self) -> Result<(), Duration> {
        self.with(|held, now| {
            wait(*held, now)?;
            if let Some(held) = held {
                (held.until, held.probing) = (now + PROBE, true);
            }
            Ok(())
        })
    }

    /// SCM throttles.
    pub(super) fn hold(&self, told: Option<Duration>) {
        self.with(|held, now| {
            let told = told.map(|told| told.min(MOST));
            match held {
                // Sent before it was known.
                Some(held) if !held.probing && now < held.until => {
                    held.until = held.until.max(now + told.unwrap_or_default());
                }
                _ => {
                    let doubling = held.map_or(FIRST, |held| held.next);
                    let wait = told.unwrap_or_else(|| chance::about(doubling));
                    *held = Some(Held { until: now + wait, next: (doubling * 2).min(LONGEST), probing: false });
                }
            }
        })
    }

    /// An attempt's part in this. Where it ends without a word of SCM and was the one that looks, the next call looks.
    pub(super) fn attempt(&self) -> Attempt<'_> {
        Attempt(self)
    }

    /// SCM has dealt with a request, or cannot be reached: if that was the call that looks, no call is held back any more.
    pub(super) fn served(&self) {
        self.with(|held, _| *held = held.filter(|held| !held.probing));
    }

    fn with<T>(&self, work: impl FnOnce(&mut Option<Held>, Instant) -> T) -> T {
        work(&mut self.0.lock().expect("nothing panics while it holds the time"), clock::steady())
    }
}

pub(super) struct Attempt<'a>(&'a Throttle);

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.0.with(|held, now| {
            if let Some(held) = held.as_mut().filter(|held| held.probing) {
                held.until = held.until.min(now);
            }
        });
    }
}

fn wait(held: Option<Held>, now: Instant) -> Result<(), Duration> {
    match held.map(|held| held.until.saturating_duration_since(now)) {
        Some(wait) if !wait.is_zero() => Err(wait),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::{PROBE, Throttle};

    const MOMENT: Duration = Duration::from_millis(1);

    fn seconds(number: u64) -> Option<Duration> {
        Some(Duration::from_secs(number))
    }

    #[tokio::test(start_paused = true)]
    async fn calls_are_held_back_as_long_as_scm_says() {
        for (said, held) in [(7, 7), (86_400, 60)] {
            let throttle = Throttle::default();
            assert_eq!(throttle.admit(), Ok(()));
            let held = Duration::from_secs(held);
            throttle.hold(seconds(said));
            assert_eq!((throttle.look(), throttle.admit()), (Err(held), Err(held)));
            throttle.hold(None);
            advance(held - MOMENT).await;
            assert!(throttle.admit().is_err(), "a shorter wait does not end a longer one");
            advance(MOMENT).await;
            assert_eq!((throttle.look(), throttle.admit()), (Ok(()), Ok(())));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_scm_says_nothing_the_wait_doubles_to_its_bound_and_begins_anew_after_a_success() {
        let throttle = Throttle::default();
        for about in [1, 2, 4, 4] {
            throttle.hold(None);
            let wait = throttle.look().unwrap_err();
            let about = Duration::from_secs(about);
            assert!(wait >= about.mul_f64(0.9) && wait <= about.mul_f64(1.1), "{wait:?}");
            assert_eq!(throttle.admit(), Err(wait));
            throttle.hold(None);
            assert_eq!(throttle.admit(), Err(wait), "what was under way when it began changes nothing");
            throttle.served();
            assert_eq!(throttle.admit(), Err(wait), "nor does a success from before");
            advance(wait).await;
            assert_eq!(throttle.admit(), Ok(()));
        }
        throttle.served();
        throttle.hold(None);
        assert!(throttle.look().unwrap_err() <= Duration::from_millis(1100));
    }

    #[tokio::test(start_paused = true)]
    async fn one_call_looks_and_the_others_follow_when_it_was_served() {
        let throttle = Throttle::default();
        throttle.hold(None);
        advance(throttle.look().unwrap_err()).await;
        assert_eq!(throttle.admit(), Ok(()));
        assert_eq!((throttle.look(), throttle.admit()), (Err(PROBE), Err(PROBE)));
        throttle.served();
        assert_eq!([throttle.admit(), throttle.admit()], [Ok(()); 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_looks_and_is_given_up_keeps_nobody_waiting() {
        let throttle = Throttle::default();
        throttle.hold(None);
        advance(throttle.look().unwrap_err()).await;
        assert_eq!(throttle.admit(), Ok(()));
        drop(throttle.attempt());
        assert_eq!(throttle.admit(), Ok(()));
        let attempt = throttle.attempt();
        throttle.hold(seconds(7));
        drop(attempt);
        assert_eq!(throttle.admit(), Err(Duration::from_secs(7)), "SCM has spoken");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_looks_and_never_comes_back_is_followed_by_another() {
        let throttle = Throttle::default();
        throttle.hold(None);
        advance(throttle.look().unwrap_err()).await;
        assert_eq!(throttle.admit(), Ok(()));
        advance(PROBE).await;
        assert_eq!((throttle.admit(), throttle.admit()), (Ok(()), Err(PROBE)));
    }
}
