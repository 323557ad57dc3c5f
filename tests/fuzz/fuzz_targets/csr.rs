//! Fuzzes the CSR validation: any text is accepted or rejected without a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use scm_gateway::validate::csr;

fuzz_target!(|pem: &str| {
    let _ = csr::check(pem, Some("www.example.com"));
    let _ = csr::check(&format!("-----BEGIN CERTIFICATE REQUEST-----\n{pem}\n-----END CERTIFICATE REQUEST-----"), None);
});
