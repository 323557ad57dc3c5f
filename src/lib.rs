//! scm-gateway: a stateless gRPC service that saves certificate information at Huawei Cloud SCM.
//!
//! One way through the house:
//!
//! ```text
//! pb request ─ validate ─▶ Checked ─ rest::translate ─▶ UnsignedRequest ─ upstream: sign ─▶ SignedRequest ─ transport ─▶ RawReply
//! pb reply   ◀──────────────────────────────────────────────────────────────────────────── rest::decode ◀──────────────┘
//! Status     ◀─ status::render ─ Error, from any step
//! ```
//!
//! A request turns from one type into the next, and the type says how far it got: an `UnsignedRequest` can be signed
//! again and again, a `SignedRequest` is good for one attempt and cannot be cloned.
//!
//! The proto is the source: `build.rs` prints from its annotations each RPC's [`rest::RestMethod`] and the tonic
//! service. Adding a plain RPC is a proto edit and its tests.
//!
//! # Rooms
//!
//! | module | what is there |
//! |---|---|
//! | [`config`] | file and environment, typed and checked, every problem at once; beside it only OpenTelemetry's SDK reads variables of its own |
//! | [`secret`] | credentials: redacted, wiped |
//! | [`clock`], [`jitter`] | the only doors for time and randomness |
//! | [`proto`] | what `build.rs` printed |
//! | [`error`] | what happened, and how far the request got; knows no gRPC |
//! | [`validate`] | what is refused before anything is sent |
//! | [`rest`] | translate, decode, the vendor's codes |
//! | [`sign`] | SDK-HMAC-SHA256, pure |
//! | [`upstream`] | deadline, circuits, repeat, attempt, sign, transport |
//! | [`shares`] | how much of what all have in common one may have |
//! | [`identity`] | what may be a caller's name |
//! | [`caller`] | who calls, and what the list of callers lets them do |
//! | [`call`] | what accompanies a call beside its message |
//! | [`service`] | validate → upstream → reply, for any RPC |
//! | [`status`] | THE table: error → gRPC status |
//! | [`edge`] | the gRPC listener and its layers |
//! | [`readiness`] | whether calls are welcome, for `/readyz` and gRPC health |
//! | [`admin`] | `/livez` `/readyz` `/metrics` |
//! | [`health_check`] | asks a running gateway whether it lives |
//! | [`telemetry`] | spans, metrics, log lines |
//! | [`rotation`] | takes up keys and certificates anew when their files change |
//! | [`agency`] | fetches temporary keys from the metadata service of an ECS, before the last ones expire |
//! | [`workers`] | the runtimes, one for each core |
//! | [`mod@run`] | puts the rooms together |
//!
//! Imports point down, but for the lines that `build.rs` prints into [`proto`] for the rooms above it: run → edge →
//! service → upstream → {rest, sign} → {proto, error, secret, clock}. `config` hands each room its own small struct.
//! tonic's server is named in edge, service, status, readiness and run; hyper's client in `upstream::transport`, reqwest,
//! for OTLP, in `telemetry::export`. `src/build` belongs to `build.rs`.

pub mod app;
pub mod clock;
pub mod config;
pub mod error;
pub mod grpc;
pub mod jitter;
pub mod ops;
pub mod proto;
pub mod reload;
pub mod runtime;
pub mod scm;
pub mod validate;

pub use app::run;
pub use error::Error;
