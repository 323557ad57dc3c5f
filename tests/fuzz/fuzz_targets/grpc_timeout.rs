//! Fuzzes `grpc-timeout`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| scm_gateway::grpc::fuzz::grpc_timeout(data));
