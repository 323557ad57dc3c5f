//! Limits on what callers may use at the same time.

pub(super) mod concurrency;
pub(super) mod connection_memory;
pub(super) mod keyed_quota;
pub(super) mod watches;

/// Unlisted and unidentified callers together may use at most `1 / UNLISTED_SHARE` of each shared limit.
pub(super) const UNLISTED_SHARE: usize = 8;
