use proptest::prelude::*;

use super::*;

#[test]
fn every_server_of_the_corpus_is_used() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/server");
    let mut inputs = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        check(&std::fs::read(entry.unwrap().path()).unwrap());
        inputs += 1;
    }
    assert!(inputs > 0, "no corpus");
}

/// A part of an input. Most fields of a reply are small numbers.
fn part() -> impl Strategy<Value = Vec<u8>> {
    let how = prop_oneof![4 => 0..RAW, 1 => any::<u8>()];
    let field = prop_oneof![Just(0u32), Just(16), Just(32), 0..64u32, any::<u32>()];
    (how, prop::collection::vec(field, 0..16)).prop_map(|(how, fields)| {
        let payload: Vec<u8> = fields.into_iter().flat_map(u32::to_le_bytes).collect();
        [&[how, payload.len() as u8], &payload[..]].concat()
    })
}

proptest! {
    #[test]
    fn any_server_that_speaks_the_version_is_used(parts in prop::collection::vec(part(), 0..16)) {
        // Major 0, minor 1.
        check(&[&[0, 4, 0, 0, 1, 0], &parts.concat()[..]].concat());
    }
}
