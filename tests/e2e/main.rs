//! End-to-end tests: a gateway on real sockets, with the SCM emulator as its upstream.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs, unreachable_pub, reason = "tests")]

mod admin;
mod audit;
mod binary;
mod call;
mod circuits;
mod clock;
mod conformance;
mod connections;
mod deadline;
mod descriptors;
mod drain;
mod dry_run;
mod encodings;
mod errors;
mod field_rules;
mod floods;
mod health;
mod hostile;
mod identity;
mod idle_connections;
mod instances;
mod malformed;
mod metadata;
mod metrics;
mod overload;
mod permissions;
mod projects;
mod protocol;
mod read_info;
mod readiness;
mod reading;
mod reflection;
mod reload;
mod requests;
mod retries;
mod save_info;
mod secrets;
mod status;
mod status_table;
mod telemetry;
mod tls;
mod tolerance;
mod unknown_outcomes;
mod unread_responses;
mod validation;
mod vendor_replies;
mod vendor_requests;
mod watch;
mod workload_identity;

use scm_harness as harness;
