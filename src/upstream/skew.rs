//! How far our clock is from one project's endpoint, as the `Date` of its answers tells.
//!
//! SCM refuses a signature whose date is more than 15 minutes off. Then the offset is taken into account from there on.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use http::HeaderMap;
use tokio::time::Instant;

use crate::{clock::seconds_between, rest::decode::ahead};

/// Up to here a difference is what seconds and the network make of equal clocks.
const TOLERATED: i64 = 60;

#[derive(Debug, Default)]
pub(super) struct Skew {
    /// Seconds by which SCM's clock was ahead, last time it told.
    seen: AtomicI64,
    /// Seconds added to our clock when signing.
    offset: AtomicI64,
    /// The time of day and the steady time, last time somebody looked.
    last: Mutex<Option<(SystemTime, Instant)>>,
}

impl Skew {
    /// Notes what an answer tells, and warns when the clocks part.
    pub(super) fn observe(&self, headers: &HeaderMap, now: SystemTime) {
        let Some(seconds) = ahead(headers, now) else { return };
        let before = self.seen.swap(seconds, Relaxed);
        if is_off(seconds) && !is_off(before) {
            tracing::warn!(
                seconds,
                "clock differs from that of SCM by more than 60 s: correct it, SCM rejects signatures at 15 min"
            );
        }
    }

    /// Seconds added to our clock when signing.
    pub(super) fn offset(&self) -> i64 {
        self.offset.load(Relaxed)
    }

    /// Takes the offset that a refusal told. Whether it differs from the one that was `used` for what it refused: else
    /// signing again would change nothing.
    pub(super) fn adopt(&self, told: i64, used: i64) -> bool {
        self.offset.store(told, Relaxed);
        is_off(told.saturating_sub(used))
    }

    /// Calls `doubt` if the time of day has jumped since the last look: signatures that were good may not be any more.
    /// Nobody else passes before that is done.
    pub(super) fn look(&self, now: SystemTime, steady: Instant, doubt: impl FnOnce()) {
        let mut last = self.last.lock().expect("nothing panics while it holds the times");
        let jumped = last.is_some_and(|(then, steadily)| {
            let passed = i64::try_from(steady.saturating_duration_since(steadily).as_secs()).unwrap_or(i64::MAX);
            is_off(seconds_between(then, now).saturating_sub(passed))
        });
        *last = Some((now, steady));
        if jumped {
            doubt();
        }
    }

    /// Seconds by which SCM's clock is ahead of ours.
    pub(super) fn seconds(&self) -> i64 {
        self.seen.load(Relaxed)
    }
}

/// The time of day with an offset in seconds.
pub(super) fn corrected(now: SystemTime, offset: i64) -> SystemTime {
    let seconds = Duration::from_secs(offset.unsigned_abs());
    let corrected = if offset < 0 { now.checked_sub(seconds) } else { now.checked_add(seconds) };
    corrected.unwrap_or(now)
}

fn is_off(seconds: i64) -> bool {
    seconds.saturating_abs() > TOLERATED
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use http::{HeaderMap, HeaderValue, header};

    use super::{Skew, corrected};
    use crate::{clock::steady, rest::decode::ahead};

    const NOW: Duration = Duration::from_secs(1_660_017_906);

    fn dated(date: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::DATE, HeaderValue::from_str(date).unwrap())])
    }

    #[test]
    fn an_offset_is_taken_once_and_kept() {
        let now = SystemTime::UNIX_EPOCH + NOW;
        for seconds in [1200, -1200] {
            let theirs = corrected(now, seconds);
            let told = ahead(&dated(&httpdate::fmt_http_date(theirs)), now).unwrap();
            assert_eq!(told, seconds);
            let skew = Skew::default();
            skew.observe(&dated(&httpdate::fmt_http_date(theirs)), now);
            assert_eq!((skew.seconds(), skew.offset()), (seconds, 0), "not before a signature is refused");
            assert!(skew.adopt(told, 0));
            assert_eq!(corrected(now, skew.offset()), theirs);
            assert!(!skew.adopt(told, told), "signing again would change nothing");
            assert!(skew.adopt(told, 0), "but for one signed before");
            assert!(skew.adopt(0, told), "the clock was set: the offset goes");
        }
    }

    #[test]
    fn a_small_difference_or_no_date_is_none() {
        let now = SystemTime::UNIX_EPOCH + NOW;
        assert!(!Skew::default().adopt(60, 0));
        assert_eq!(ahead(&dated("today"), now), None);
        assert_eq!(ahead(&HeaderMap::new(), now), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_jump_of_the_clock_is_seen_once() {
        let (skew, now, mut doubts) = (Skew::default(), SystemTime::UNIX_EPOCH + NOW, 0);
        for (later, jumps) in [(0, 0), (30, 0), (1000, 1), (1000, 1), (0, 2), (0, 2)] {
            skew.look(now + Duration::from_secs(later), steady(), || doubts += 1);
            assert_eq!(doubts, jumps, "{later}");
        }
    }
}
