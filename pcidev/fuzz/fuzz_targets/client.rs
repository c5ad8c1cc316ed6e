//! A vfio-user client that sends anything to a virtio function: protocol, memory, interrupts,
//! registers. In this folder's parent: `cargo +nightly fuzz run client`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pcidev::fuzzing::check(input));
