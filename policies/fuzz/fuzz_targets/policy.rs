//! The parser, the merger and the compiler, with any bytes. In this folder's parent:
//! `cargo +nightly fuzz run policy`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| policy_compiler::fuzzing::check(input));
