//! Fuzzes the whole processing of requests: ring, chains, parsing, engine and image. To run this
//! target in the parent of this folder: `cargo +nightly fuzz run queue`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| block::fuzzing::check(input));
