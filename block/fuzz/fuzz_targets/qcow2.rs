//! Fuzzes qcow2 images whose files hold any bytes. Run this target in the folder `block/fuzz` with
//! `cargo +nightly fuzz run qcow2`.

#![no_main]

libfuzzer_sys::fuzz_target!(
    // The image catches panics of the qcow2 library, so a panic alone must not end the fuzzer. The
    // image leaks its objects after a panic, so run this target with `-detect_leaks=0`.
    init: std::panic::set_hook(Box::new(|_| {})),
    |input: &[u8]| block::fuzzing::qcow2::check(input)
);
