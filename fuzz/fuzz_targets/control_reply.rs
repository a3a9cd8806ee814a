//! `src/control_reply.rs` under a fuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| exitgate_fuzz::control_reply::run(input));
