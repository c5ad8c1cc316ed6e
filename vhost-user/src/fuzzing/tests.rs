use proptest::prelude::*;
use virtio::test_utils::replay;

use super::*;

#[test]
fn every_session_of_the_corpus_is_served() {
    replay(
        concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/session"),
        check,
    );
}

/// A part of an input: one message with descriptors.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop::collection::vec(prop_oneof![Just(0u8), 0u8..4, any::<u8>()], 0..64);
    let flags = prop_oneof![Just(1u8), Just(9), any::<u8>()];
    (any::<u8>(), 1u8..42, flags, payload).prop_map(|(kind, request, flags, payload)| {
        let size = payload.len() as u8;
        let header = [request, 0, 0, 0, flags, 0, 0, 0, size, 0, 0, 0];
        [&[kind, 12 + size], &header[..], &payload].concat()
    })
}

proptest! {
    #[test]
    fn any_front_end_is_served(messages in prop::collection::vec(message(), 0..16)) {
        check(&messages.concat());
    }
}
