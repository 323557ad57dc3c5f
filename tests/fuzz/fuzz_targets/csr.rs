//! Fuzzes the validation of signing requests.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| scm_gateway::fuzz::csr(data));
