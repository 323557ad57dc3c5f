//! The operations of SCM: what each rejects, which state allows it, and a certificate's life from order to deletion.

#![allow(clippy::unwrap_used)]

mod checking;
#[path = "../support/client.rs"]
#[allow(dead_code, reason = "shared with the other suites")]
mod client;
mod life;
mod operations;
mod scripts;
mod stores;
mod walk;
