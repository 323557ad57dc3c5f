//! Fuzzes the validation of private keys.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| scm_gateway::validate::fuzz::private_key(data));
