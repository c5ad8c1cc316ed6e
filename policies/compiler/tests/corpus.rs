//! Runs the checks of the fuzz target on all inputs of its corpus.
#![allow(clippy::unwrap_used, reason = "this is a test")]

use std::fs;
use std::path::Path;

#[test]
fn the_properties_hold_for_every_input_of_the_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/policy");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        policy_compiler::fuzzing::check(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 10, "{count}");
}
