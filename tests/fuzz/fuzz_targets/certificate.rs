//! Fuzzes the validation of certificates.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| scm_gateway::validate::fuzz::certificate(data));
