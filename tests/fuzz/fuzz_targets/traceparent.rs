//! Fuzzes the trace context.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| scm_gateway::fuzz::traceparent(data));
