use super::*;

use proptest::prelude::*;
use virtio::test_utils::{AVAIL, replay};

#[test]
fn every_vring_of_the_corpus_is_served() {
    replay(
        concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/queue"),
        check,
    );
}

#[test]
fn every_qcow2_image_of_the_corpus_is_used() {
    replay(
        concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/qcow2"),
        qcow2::check,
    );
}

proptest! {
    #[test]
    fn every_request_of_a_random_vring_is_given_back(
        options: u8,
        descriptors in prop::collection::vec(
            (0..MEMORY + 0x100, 0..0x600u32, 0..8u16, 0..18u16), 16
        ),
        heads in prop::collection::vec(0..17u16, 16),
        index in prop_oneof![9 => 0..17u16, 1 => any::<u16>()],
        kind in 0..16u32,
    ) {
        let mut input = vec![options];
        for (addr, len, flags, next) in descriptors {
            input.extend_from_slice(&addr.to_le_bytes());
            input.extend_from_slice(&len.to_le_bytes());
            // A packed descriptor has its id where a split descriptor has its flags, and its
            // flags after the id.
            let (first, second) = match options & 4 {
                0 => (flags, next),
                _ => (next, flags | AVAIL),
            };
            input.extend_from_slice(&first.to_le_bytes());
            input.extend_from_slice(&second.to_le_bytes());
        }
        input.extend_from_slice(&[0, 0]);
        input.extend_from_slice(&index.to_le_bytes());
        heads.iter().for_each(|head| input.extend_from_slice(&head.to_le_bytes()));
        // Each address that is a multiple of 16 holds a request header of the type `kind`.
        input.resize(0x400, 0);
        while input.len() < 0x4000 {
            input.extend_from_slice(&kind.to_le_bytes());
            input.extend_from_slice(&[0; 12]);
        }
        check(&input);
    }
}
