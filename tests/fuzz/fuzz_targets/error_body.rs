//! Fuzzes error responses of SCM.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| scm_gateway::fuzz::responses::error_body(data));
