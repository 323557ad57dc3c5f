//! Fuzzes the framing and validation of request messages.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| scm_gateway::grpc::fuzz::request_message(data));
