//! Circuit breaker and throttle, whatever the order of calls, results and pauses.

#[cfg(feature = "shuttle")]
mod interleavings;
mod state_machines;
