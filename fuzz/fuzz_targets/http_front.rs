//! `src/http_front.rs` under a fuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| exitgate_fuzz::http_front::run(input));
