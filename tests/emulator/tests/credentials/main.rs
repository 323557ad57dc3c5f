//! The services that issue temporary credentials: what each accepts and rejects, the script, and the vendor's requests.

#![allow(clippy::unwrap_used)]

#[path = "../support/client.rs"]
#[allow(dead_code, reason = "shared with the other suites")]
mod client;
mod faults;
mod metadata;
mod pod_identity;
mod scm;
mod services;
mod sts;
mod wire;
