//! Fuzzes the vfio-user client with a server that sends any replies, commands and descriptors. Run
//! this target in the folder `vfio-user/fuzz` with `cargo +nightly fuzz run server`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| vfio_user::fuzzing::check(input));
