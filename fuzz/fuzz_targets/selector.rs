//! `src/selector.rs` under a fuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| exitgate_fuzz::selector::run(input));
