//! Fuzzes successful responses of SCM, for every RPC.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| scm_gateway::fuzz::responses::reply(data));
