use proptest::prelude::*;
use virtio::test_utils::replay;

use super::*;

#[test]
fn every_device_of_the_corpus_is_driven() {
    replay(
        concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/device"),
        check,
    );
}

proptest! {
    #[test]
    fn any_device_is_driven(
        choice: u8,
        parts in prop::collection::vec((1..13u8, prop::collection::vec(any::<u8>(), 0..16)), 0..24),
    ) {
        let mut input = vec![choice];
        for (kind, bytes) in parts {
            input.extend([kind, bytes.len() as u8]);
            input.extend(bytes);
        }
        check(&input);
    }
}
