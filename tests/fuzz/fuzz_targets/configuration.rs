//! Fuzzes the configuration: file and environment.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| scm_gateway::config::fuzz::configuration(data));
