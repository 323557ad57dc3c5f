//! The tonic service and client that `build.rs` generates from `proto/`.

#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated; its documentation is the proto's")]

include!(concat!(env!("OUT_DIR"), "/grpc/huaweicloud.scm.v1.rs"));
