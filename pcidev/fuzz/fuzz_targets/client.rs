//! Fuzzes a virtio function with a vfio-user client that sends random messages. Run this target in
//! the folder `pcidev` with `cargo +nightly fuzz run client`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pcidev::fuzzing::check(input));
