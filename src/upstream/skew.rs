//! How far our clock is from SCM's, as the `Date` of its answers tells.
//!
//! SCM refuses a signature whose date is more than 15 minutes off. Then the offset is taken into account from there on.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, SystemTime},
};

use http::{HeaderMap, header};

/// Up to here a difference is what seconds and the network make of equal clocks.
const TOLERATED: i64 = 60;

#[derive(Debug, Default)]
pub(super) struct Skew {
    /// Seconds by which SCM's clock was ahead, last time it told.
    seen: AtomicI64,
    /// Seconds added to our clock when signing.
    offset: AtomicI64,
}

impl Skew {
    /// Notes what an answer tells, and warns when the clocks part.
    pub(super) fn observe(&self, headers: &HeaderMap, now: SystemTime) {
        let date = headers.get(header::DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        let Some(seconds) = date.map(|date| seconds_between(now, date)) else { return };
        let before = self.seen.swap(seconds, Ordering::Relaxed);
        if is_off(seconds) && !is_off(before) {
            tracing::warn!(seconds, "the clock differs from SCM's: set it, or SCM will refuse signatures");
        }
    }

    /// The time to sign with.
    pub(super) fn correct(&self, now: SystemTime) -> SystemTime {
        let offset = self.offset.load(Ordering::Relaxed);
        let seconds = Duration::from_secs(offset.unsigned_abs());
        let corrected = if offset < 0 { now.checked_sub(seconds) } else { now.checked_add(seconds) };
        corrected.unwrap_or(now)
    }

    /// After a signature was refused for its date: whether there is another offset than the one it was made with.
    pub(super) fn adopt(&self) -> bool {
        let seen = self.seen.load(Ordering::Relaxed);
        is_off(seen - self.offset.swap(seen, Ordering::Relaxed))
    }

    /// Seconds by which SCM's clock is ahead of ours.
    pub(super) fn seconds(&self) -> i64 {
        self.seen.load(Ordering::Relaxed)
    }
}

fn is_off(seconds: i64) -> bool {
    seconds.abs() > TOLERATED
}

fn seconds_between(ours: SystemTime, theirs: SystemTime) -> i64 {
    let whole = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    theirs.duration_since(ours).map_or_else(|behind| -whole(behind.duration()), whole)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use http::{HeaderMap, HeaderValue, header};

    use super::Skew;

    fn at(skew: &Skew, ours: SystemTime, theirs: SystemTime) {
        let date = HeaderValue::from_str(&httpdate::fmt_http_date(theirs)).unwrap();
        skew.observe(&HeaderMap::from_iter([(header::DATE, date)]), ours);
    }

    #[test]
    fn an_offset_is_taken_once_and_kept() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_660_017_906);
        for theirs in [now + Duration::from_secs(1200), now - Duration::from_secs(1200)] {
            let skew = Skew::default();
            at(&skew, now, theirs);
            assert_eq!(skew.correct(now), now, "not before a signature is refused");
            assert!(skew.adopt());
            assert_eq!(skew.correct(now), theirs);
            assert!(!skew.adopt(), "signing again would change nothing");
            at(&skew, theirs, theirs);
            assert!(skew.adopt(), "the clock was set: the offset goes");
            assert_eq!(skew.correct(theirs), theirs);
        }
    }

    #[test]
    fn a_small_difference_or_no_date_is_none() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_660_017_906);
        let skew = Skew::default();
        at(&skew, now, now + Duration::from_secs(60));
        assert!(!skew.adopt());
        skew.observe(&HeaderMap::from_iter([(header::DATE, HeaderValue::from_static("today"))]), now);
        assert_eq!(skew.seconds(), 60);
    }
}
