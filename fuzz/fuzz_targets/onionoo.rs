//! `src/onionoo.rs` under a fuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| exitgate_fuzz::onionoo::run(input));
