//! The one door through which jitter comes in.

use std::time::Duration;

/// Anything from nothing to `most`: full jitter.
pub fn full(most: Duration) -> Duration {
    most.mul_f64(fastrand::f64())
}

/// About `wait`: a tenth more or less, so that replicas do not act in step.
pub fn spread(wait: Duration) -> Duration {
    wait.mul_f64(0.9 + 0.2 * fastrand::f64())
}
