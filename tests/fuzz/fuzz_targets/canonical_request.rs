//! Fuzzes the signer: every request has a canonical form of six parts, whatever its path, query, headers and body.

#![no_main]

use libfuzzer_sys::fuzz_target;
use scm_gateway::scm::sign::{Parts, canonical};

type Pairs<'a> = Vec<(&'a str, &'a str)>;

fuzz_target!(|input: (&str, Pairs<'_>, Pairs<'_>, &[u8])| {
    let (path, query, headers, body) = input;
    let is_single_line = |(name, value): &(&str, &str)| !name.contains('\n') && !value.contains('\n');
    let headers: Vec<_> = headers.into_iter().filter(is_single_line).collect();
    let parts = Parts { method: "POST", path, query: &query, headers: &headers, body };
    let canonical = canonical(&parts);
    let lines: Vec<_> = canonical.request.split('\n').collect();
    let signed = headers.iter().filter(|(name, _)| !name.contains('_')).count();
    assert_eq!(lines.len(), 6 + signed);
    assert!(lines[1].ends_with('/') && lines[1].is_ascii() && lines[2].is_ascii());
});
