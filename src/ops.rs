//! Operations: the admin listener, the `--health` check, readiness and telemetry.

pub mod admin;
pub mod health_check;
pub mod readiness;
pub mod telemetry;
