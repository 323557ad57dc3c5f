//! What operators use: the admin listener, the health check of `--health`, readiness and telemetry.

pub mod admin;
pub mod health_check;
pub mod readiness;
pub mod telemetry;
