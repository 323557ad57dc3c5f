//! Fuzzes `x-forwarded-client-cert`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| scm_gateway::grpc::fuzz::forwarded_client_cert(data));
