use proptest::prelude::*;
use virtio::test_utils::replay;

use super::*;

#[test]
fn every_client_of_the_corpus_is_served() {
    replay(
        concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/client"),
        check,
    );
}

#[test]
fn every_driver_and_front_end_of_the_corpus_is_served() {
    replay(
        concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/proxy"),
        proxy::check,
    );
}

/// A part of an input that consists of one message, with or without a file.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop::collection::vec(prop_oneof![Just(0u8), 0u8..64, any::<u8>()], 0..64);
    (0u8..3, 1u8..16, payload).prop_map(|(file, command, payload)| {
        let len = 16 + payload.len() as u8;
        let header = [0, 0, command, 0, len, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        [&[file, len], &header[..], &payload].concat()
    })
}

proptest! {
    #[test]
    fn any_client_is_served(messages in prop::collection::vec(message(), 0..16)) {
        check(&messages.concat());
    }
}
