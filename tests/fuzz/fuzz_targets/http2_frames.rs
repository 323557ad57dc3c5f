//! Fuzzes the HTTP/2 guard.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| scm_gateway::grpc::fuzz::http2_frames(data));
