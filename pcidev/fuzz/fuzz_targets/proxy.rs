//! A driver and a front-end that send anything to a virtio-vhost-user device, both at once. In this
//! folder's parent: `cargo +nightly fuzz run proxy`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pcidev::fuzzing::proxy::check(input));
