//! Fuzzes the claims of tokens that are exchanged for temporary credentials.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| scm_gateway::config::fuzz::claims(data));
