//! Fuzzes certificates and keys in PEM.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| scm_gateway::config::fuzz::pem_pair(data));
