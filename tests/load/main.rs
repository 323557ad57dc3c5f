//! The binary under load, for as long as it takes to see. A target of its own: no other suite is to use up the machine
//! meanwhile.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs, unreachable_pub, reason = "tests")]

use scm_harness as harness;

mod goodput;
mod rolling_restart;
mod soak;
