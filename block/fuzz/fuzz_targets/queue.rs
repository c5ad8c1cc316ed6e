//! The whole way of requests: ring, chains, parsing, engine, image. In this folder's parent:
//! `cargo +nightly fuzz run queue`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| block::fuzzing::check(input));
