//! Fuzzes the whole processing of requests: vring, chains, parsing, engine and image. Run this
//! target in the folder `block/fuzz` with `cargo +nightly fuzz run queue`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| block::fuzzing::check(input));
