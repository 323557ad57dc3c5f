//! Fuzzes the responses of the services that issue temporary credentials.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| scm_gateway::scm::credentials::fuzz::temporary_credentials(data));
