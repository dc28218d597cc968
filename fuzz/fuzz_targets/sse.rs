//! libFuzzer's way into `checks::sse`.
#![no_main]

#[path = "../checks/mod.rs"]
#[allow(dead_code, reason = "one target of several")]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::sse::check(bytes));
