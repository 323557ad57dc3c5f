//! The single entry point for randomness in timing.

use std::time::Duration;

/// Returns a random duration between zero and `max` (full jitter).
pub fn full(max: Duration) -> Duration {
    max.mul_f64(fastrand::f64())
}

/// Returns `duration` with a jitter of ±10 %, so that replicas do not act at the same time.
pub fn spread(duration: Duration) -> Duration {
    duration.mul_f64(0.9 + 0.2 * fastrand::f64())
}
