//! `cargo xtask lint`: the checks that need no test to run.

mod circles;
mod dependencies;
mod exceptions;
mod manifests;
mod mentions;
mod packages;
mod text;

use std::collections::BTreeMap;

use cargo_metadata::{Metadata, MetadataCommand};
use hwtests::{Context, Result, ensure, progress};

use crate::cargo;
use exceptions::Exceptions;

/// What a check found: the name by which an exception may allow it, and the text for the user.
type Findings = BTreeMap<String, String>;

type Check = fn(&Metadata) -> Result<Findings>;

/// Each check by the name of its list of exceptions.
const CHECKS: [(&str, Check); 6] = [
    ("circles", circles::find),
    ("long-files", text::long_files),
    ("long-lines", text::long_lines),
    ("missing-names", mentions::find),
    ("unpublished", manifests::unpublished),
    ("incomplete", manifests::incomplete),
];

/// Runs the quick checks first, so that what they find is seen within seconds.
pub fn run() -> Result<()> {
    let metadata = metadata()?;
    check(&metadata)?;
    cargo::run("fmt --all -- --check")?;
    cargo::run("clippy --workspace --all-targets -- -D warnings")?;
    cargo::run("doc --workspace --no-deps")?;
    dependencies::check()?;
    packages::check(&metadata)
}

fn metadata() -> Result<Metadata> {
    MetadataCommand::new()
        .current_dir(cargo::root())
        .no_deps()
        .exec()
        .context("cannot tell what the workspace holds")
}

/// The checks that are our own.
fn check(metadata: &Metadata) -> Result<()> {
    progress("checking modules, text and manifests");
    let exceptions = Exceptions::read(metadata, &CHECKS.map(|(name, _)| name))?;
    let mut problems = Vec::new();
    for (name, check) in CHECKS {
        problems.extend(exceptions.sift(name, check(metadata)?));
    }
    for problem in &problems {
        eprintln!("{problem}\n");
    }
    ensure!(
        problems.is_empty(),
        "the lint found {} problems; see above",
        problems.len()
    );
    Ok(())
}
