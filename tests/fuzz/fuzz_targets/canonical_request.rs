//! Fuzzes the canonical request of the signer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| scm_gateway::fuzz::canonical_request(data));
