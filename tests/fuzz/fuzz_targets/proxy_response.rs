//! Fuzzes the response of a proxy to CONNECT.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| scm_gateway::scm::client::transport::fuzz::proxy_response(data));
