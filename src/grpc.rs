//! The inbound side: the gRPC listener, its layers, and the service behind them. The only directory that
//! uses the crate tonic.

pub mod auth;
pub mod codec;
pub mod connection;
pub mod context;
pub mod dry_run;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod gateway;
pub mod health;
mod layer;
mod limit;
mod reflection;
pub mod routes;
pub mod server;
pub mod service;
pub mod stack;
pub mod status;
