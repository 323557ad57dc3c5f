//! scm-gateway: a stateless gRPC service in front of the REST API of Huawei Cloud SCM.
//!
//! Each call is converted step by step from one type into the next, and the type tells how far the request got. An
//! `UnsignedRequest` can be signed any number of times. A `SignedRequest` is valid for one attempt and cannot be cloned.
//!
//! ```text
//! pb request ─ validate ─▶ Checked ─ scm::api ─▶ UnsignedRequest ─ scm::sign ─▶ SignedRequest ─ scm::client ─▶ RawReply
//! pb reply   ◀───────────────────────────── Decoded ◀───────────────────────────────────────── scm::api::decode ◀─┘
//! Status     ◀─ grpc::status ─ Error, from any step
//! ```
//!
//! The proto is the source of every fact about the REST side. `build.rs` generates each RPC's [`scm::api::RestMethod`], its
//! checks and its tonic service from the annotations, so a plain RPC is a proto edit and its tests.
//!
//! # Modules
//!
//! | module | content |
//! |---|---|
//! | [`app`] | builds everything from a configuration, serves, drains |
//! | [`call`] | the client of `scm-gateway call` |
//! | [`config`] | file and environment, typed and validated; the only reader of files and environment |
//! | [`proto`] | the generated messages and their JSON form |
//! | [`error`] | the error of a call: its reason and how far the request got |
//! | [`grpc`] | inbound: listener, layers, service, statuses; the only directory that uses the crate tonic, except for `call` and exports over OTLP/gRPC |
//! | [`validate`] | the rules of fields, pure |
//! | [`watch`] | watched certificates: one poll for all watchers; knows neither gRPC nor REST |
//! | [`scm`] | outbound: REST form, signature, client, credentials; the only directory that names hyper's client |
//! | [`reload`] | reloads of credentials and certificates |
//! | [`ops`] | admin listener, status page, `--health`, readiness, telemetry |
//! | [`runtime`] | one runtime for each worker thread |
//! | `sync` | the locks whose users shuttle explores |
//! | `json`, `scan` | writes JSON text; looks for bytes of a kind |
//! | [`clock`], [`jitter`] | the only sources of time and of randomness |
//! | `fuzz` | what holds for every input of every parser; compiled only for tests and by cargo-fuzz |
//!
//! `grpc` uses `validate` and `scm`; `scm` never uses `grpc`; there are no import cycles, not even through generated code.
//! `tests/architecture.rs` holds these rules. `docs/architecture.md` shows the layers in order.

pub mod app;
pub mod call;
pub mod clock;
pub mod config;
pub mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod grpc;
pub mod jitter;
mod json;
pub mod ops;
pub mod proto;
pub mod reload;
pub mod runtime;
mod scan;
pub mod scm;
mod sync;
pub mod validate;
pub mod watch;

pub use app::run;
pub use error::Error;
