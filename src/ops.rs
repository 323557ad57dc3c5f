//! Operations: the admin listener and its status page, the `--health` check, readiness and telemetry.

pub mod admin;
pub mod health_check;
pub mod readiness;
pub mod status;
pub mod telemetry;
