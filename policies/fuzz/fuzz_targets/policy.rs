//! Fuzzes the parser, the merger and the compiler with arbitrary bytes. Start it in the `policies`
//! folder with `cargo +nightly fuzz run policy`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| policy_compiler::fuzzing::check(input));
