//! Tests of the real binary under load. A separate target, so that no other suite uses the machine at the same time.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs, unreachable_pub, reason = "tests")]

use scm_harness as harness;

mod goodput;
mod load_balancer;
mod rolling_restart;
mod soak;
