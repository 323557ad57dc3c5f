//! How long SCM usually takes to answer an attempt, estimated like TCP's retransmission timeout (RFC 6298).

use std::time::Duration;

use crate::scm::api::Method;

/// The bound before the first response.
const INITIAL: f64 = 0.3;

/// The same bound for methods that are not idempotent: SCM carries them out at other services or at a CA.
const INITIAL_NOT_IDEMPOTENT: f64 = 4.0;

/// The smallest bound, as Linux has it for TCP. A shorter pause of SCM or of the network is not an outage.
const MIN: f64 = 0.2;

/// The response time of a method, in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResponseTime {
    initial: f64,
    estimate: Option<Estimate>,
}

/// The smoothed response time and its variation, in seconds.

#[derive(Debug, Clone, Copy)]
struct Estimate {
    smoothed: f64,
    variation: f64,
}

impl ResponseTime {
    /// Creates the response time of a method without a response.
    pub(super) fn of(method: &Method) -> Self {
        Self { initial: if method.idempotent { INITIAL } else { INITIAL_NOT_IDEMPOTENT }, estimate: None }
    }

    /// Adds the time of an attempt that SCM answered.
    pub(super) fn observe(&mut self, time: Duration) {
        let time = time.as_secs_f64();
        self.estimate = Some(match self.estimate {
            None => Estimate { smoothed: time, variation: time / 2.0 },
            Some(Estimate { smoothed, variation }) => Estimate {
                smoothed: smoothed + (time - smoothed) / 8.0,
                variation: variation + ((time - smoothed).abs() - variation) / 4.0,
            },
        });
    }

    /// Returns whether an attempt without an answer has waited longer than attempts usually take.
    pub(super) fn is_exceeded_by(&self, waited: Duration) -> bool {
        let bound =
            self.estimate.map_or(self.initial, |estimate| (estimate.smoothed + 4.0 * estimate.variation).max(MIN));
        waited.as_secs_f64() > bound
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::ResponseTime;
    use crate::scm::api::{
        RestMethod as _,
        methods::{PushCertificate, SaveInfo},
    };

    /// Asserts the bound after these response times, all in milliseconds.
    #[track_caller]
    fn assert_bound(times: impl IntoIterator<Item = u64>, bound: u64) {
        let mut usual = ResponseTime::of(SaveInfo::METHOD);
        times.into_iter().for_each(|time| usual.observe(Duration::from_millis(time)));
        let exceeds = |waited| usual.is_exceeded_by(Duration::from_millis(waited));
        assert!(!exceeds(bound - 1) && exceeds(bound + 1), "{usual:?}");
    }

    #[test]
    fn the_bound_follows_the_response_times() {
        assert_bound([], 300);
        assert_bound([200], 600);
        assert_bound([5; 100], 200);
        assert_bound([1000; 100], 1000);
        assert_bound([500, 1500].repeat(100), 3167);
        assert_bound([1000; 100].into_iter().chain([100; 100]), 200);
    }

    #[test]
    fn a_method_that_is_not_idempotent_may_take_longer_at_first() {
        let mut usual = ResponseTime::of(PushCertificate::METHOD);
        assert!(!usual.is_exceeded_by(Duration::from_secs(4)) && usual.is_exceeded_by(Duration::from_secs(5)));
        usual.observe(Duration::from_millis(200));
        assert!(usual.is_exceeded_by(Duration::from_millis(601)));
    }
}
