//! The layers of the inbound stack, one concern a file. `stack.rs` lists them in order.

pub(super) mod catch_panic;
pub(super) mod charge_response;
pub(super) mod deadline;
pub(super) mod decompress;
pub(super) mod max_stream_duration;
pub(super) mod memory_quota;
pub(super) mod message_size;
pub(super) mod peer_identity;
pub(super) mod reject_malformed;
pub(super) mod render_errors;
pub(super) mod require_grpc;
pub(super) mod require_listed;
pub(super) mod trace;
pub(super) mod unary_body;
