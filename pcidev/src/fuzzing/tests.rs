use proptest::prelude::*;

use super::*;

#[test]
fn the_corpus_is_served() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/client");
    let mut inputs = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        check(&std::fs::read(entry.unwrap().path()).unwrap());
        inputs += 1;
    }
    assert!(inputs > 0, "no corpus");
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
