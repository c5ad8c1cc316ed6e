//! Fuzzes the driver of a virtio-vhost-user device with a device that lies in its registers,
//! capabilities, rings and messages. Run this target in the folder `vvu/fuzz` with `cargo +nightly
//! fuzz run device`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| vvu::fuzzing::check(input));
