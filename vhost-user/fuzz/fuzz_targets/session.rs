//! A front-end that sends anything to a session: messages, and descriptors of every kind. In this
//! folder's parent: `cargo +nightly fuzz run session`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| vhost_user::fuzzing::check(input));
