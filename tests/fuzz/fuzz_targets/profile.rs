//! Fuzzes the vendor's profile.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| scm_gateway::config::fuzz::profile(data));
