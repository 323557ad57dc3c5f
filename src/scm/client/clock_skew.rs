//! The difference between the local clock and the clock of a project's endpoint, from the `Date` of its responses.
//!
//! SCM rejects a signature whose date is more than 15 minutes off. After such a rejection the measured offset is applied
//! to all further signatures.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use http::HeaderMap;
use tokio::time::Instant;

use crate::{clock::seconds_between, ops::status, scm::api::decode::skew_seconds};

/// Differences up to this many seconds are the granularity of `Date` and the network delay.
const TOLERANCE: i64 = 60;

#[derive(Debug, Default)]
pub(super) struct ClockSkew {
    /// Seconds by which SCM's clock was ahead in the last response.
    measured: AtomicI64,
    /// Seconds added to the local clock when signing.
    offset: AtomicI64,
    /// The wall clock and the monotonic clock at the last check for a jump.
    last_check: Mutex<Option<(SystemTime, Instant)>>,
}

impl ClockSkew {
    /// Stores the skew of a response, and warns when it exceeds the tolerance for the first time.
    pub(super) fn observe(&self, headers: &HeaderMap, now: SystemTime) {
        let Some(seconds) = skew_seconds(headers, now) else { return };
        let before = self.measured.swap(seconds, Relaxed);
        if exceeds_tolerance(seconds) && !exceeds_tolerance(before) {
            tracing::warn!(
                seconds,
                "clock differs from that of SCM by more than 60 s: correct it, SCM rejects signatures at 15 min"
            );
        }
    }

    /// Returns the seconds added to the local clock when signing.
    pub(super) fn offset(&self) -> i64 {
        self.offset.load(Relaxed)
    }

    /// Stores the measured clock offset, for all further signatures.
    pub(super) fn set_offset(&self, measured: i64) {
        self.offset.store(measured, Relaxed);
    }

    /// Calls `on_jump` if the wall clock has jumped since the last check, because SCM may now reject signatures. Other
    /// calls wait for the check to finish.
    pub(super) fn check_for_jump(&self, now: SystemTime, monotonic: Instant, on_jump: impl FnOnce()) {
        let mut last_check = self.last_check.lock().expect("no panic while the lock is held");
        let jumped = last_check.is_some_and(|(last_now, last_monotonic)| {
            let elapsed = monotonic.saturating_duration_since(last_monotonic).as_secs();
            let elapsed = i64::try_from(elapsed).unwrap_or(i64::MAX);
            exceeds_tolerance(seconds_between(last_now, now).saturating_sub(elapsed))
        });
        *last_check = Some((now, monotonic));
        if jumped {
            on_jump();
        }
    }

    /// Returns the state for the status page.
    pub(super) fn status(&self) -> status::ClockSkew {
        status::ClockSkew { skew_seconds: self.seconds(), correction_seconds: self.offset() }
    }

    /// Returns the seconds by which SCM's clock is ahead.
    pub(super) fn seconds(&self) -> i64 {
        self.measured.load(Relaxed)
    }
}

/// Returns the wall clock plus an offset in seconds.
pub(super) fn corrected(now: SystemTime, offset: i64) -> SystemTime {
    let seconds = Duration::from_secs(offset.unsigned_abs());
    let corrected = if offset < 0 { now.checked_sub(seconds) } else { now.checked_add(seconds) };
    corrected.unwrap_or(now)
}

/// Converts a time that a server has sent to the local clock, if the `Date` of its response shows that the clocks differ.
pub(in crate::scm) fn local_time(time: SystemTime, headers: &HeaderMap, now: SystemTime) -> SystemTime {
    let skew = skew_seconds(headers, now).filter(|seconds| exceeds_tolerance(*seconds));
    corrected(time, skew.unwrap_or_default().saturating_neg())
}

/// Returns whether the measured offset differs enough from the one that a rejected request was signed with for signing again
/// to help.
pub(super) fn is_correctable(measured: i64, signed_with: i64) -> bool {
    exceeds_tolerance(measured.saturating_sub(signed_with))
}

fn exceeds_tolerance(seconds: i64) -> bool {
    seconds.saturating_abs() > TOLERANCE
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use http::{HeaderMap, HeaderValue, header};

    use super::{ClockSkew, corrected, is_correctable, local_time};
    use crate::{clock::monotonic, scm::api::decode::skew_seconds};

    const NOW: Duration = Duration::from_secs(1_660_017_906);

    fn dated(date: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::DATE, HeaderValue::from_str(date).unwrap())])
    }

    #[test]
    fn an_offset_is_applied_and_kept() {
        let now = SystemTime::UNIX_EPOCH + NOW;
        for seconds in [1200, -1200] {
            let theirs = corrected(now, seconds);
            let measured = skew_seconds(&dated(&httpdate::fmt_http_date(theirs)), now).unwrap();
            assert_eq!(measured, seconds);
            let skew = ClockSkew::default();
            skew.observe(&dated(&httpdate::fmt_http_date(theirs)), now);
            assert_eq!((skew.seconds(), skew.offset()), (seconds, 0), "not before a signature is rejected");
            skew.set_offset(measured);
            assert_eq!(corrected(now, skew.offset()), theirs);
            assert!(!is_correctable(measured, measured), "signing again would change nothing");
            assert!(is_correctable(measured, 0), "except for a request signed before");
            assert!(is_correctable(0, measured), "the clock was corrected: the offset is removed");
        }
    }

    #[test]
    fn a_small_skew_or_no_date_is_ignored() {
        let now = SystemTime::UNIX_EPOCH + NOW;
        assert!(!is_correctable(60, 0));
        assert_eq!(skew_seconds(&dated("today"), now), None);
        assert_eq!(skew_seconds(&HeaderMap::new(), now), None);
    }

    #[test]
    fn a_time_of_the_server_is_converted_by_its_date() {
        let now = SystemTime::UNIX_EPOCH + NOW;
        let time = now + Duration::from_secs(3600);
        for (ahead, expected) in [(0, 3600), (60, 3600), (-60, 3600), (61, 3539), (7200, -3600), (-7200, 10_800)] {
            let headers = dated(&httpdate::fmt_http_date(corrected(now, ahead)));
            assert_eq!(local_time(time, &headers, now), corrected(now, expected), "{ahead}");
        }
        assert_eq!(local_time(time, &HeaderMap::new(), now), time);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_jump_is_reported_once() {
        let skew = ClockSkew::default();
        let now = SystemTime::UNIX_EPOCH + NOW;
        let mut reported = 0;
        for (later, jumps) in [(0, 0), (30, 0), (1000, 1), (1000, 1), (0, 2), (0, 2)] {
            skew.check_for_jump(now + Duration::from_secs(later), monotonic(), || reported += 1);
            assert_eq!(reported, jumps, "{later}");
        }
    }
}
