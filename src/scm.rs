//! The outbound side: requests to SCM. The only directory that names hyper's client.

pub mod api;
pub mod client;
pub mod credentials;
pub mod sign;
