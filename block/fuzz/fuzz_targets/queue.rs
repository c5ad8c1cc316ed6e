//! Fuzzes the whole processing of requests, which includes the vring, the chains, the parser, the
//! engine and the image. Run this target in the folder `block/fuzz` with `cargo +nightly fuzz run
//! queue`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| block::fuzzing::check(input));
