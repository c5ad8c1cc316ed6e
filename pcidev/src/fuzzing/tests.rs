use std::path::Path;

use proptest::prelude::*;

use super::*;

fn replay(corpus: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut inputs = 0;
    for entry in std::fs::read_dir(folder.join(corpus)).unwrap() {
        check(&std::fs::read(entry.unwrap().path()).unwrap());
        inputs += 1;
    }
    assert!(inputs > 0, "no corpus");
}

#[test]
fn every_client_of_the_corpus_is_served() {
    replay("client", check);
}

#[test]
fn every_driver_and_front_end_of_the_corpus_is_served() {
    replay("proxy", proxy::check);
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
