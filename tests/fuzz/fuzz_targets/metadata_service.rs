//! Fuzzes the responses of the metadata service.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| scm_gateway::scm::credentials::fuzz::metadata_service(data));
