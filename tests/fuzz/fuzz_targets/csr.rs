//! Any text as a signing request: checked or refused, never a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use scm_gateway::validate::csr;

fuzz_target!(|pem: &str| {
    let _ = csr::check(pem, Some("www.example.com"));
    let _ = csr::check(&format!("-----BEGIN CERTIFICATE REQUEST-----\n{pem}\n-----END CERTIFICATE REQUEST-----"), None);
});
