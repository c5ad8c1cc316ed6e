//! The command `cargo xtask lint`, which runs all checks except the tests.

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

/// The findings of a check. The key is the name by which an exception may allow the finding, and
/// the value is the text for the user.
type Findings = BTreeMap<String, String>;

type Check = fn(&Metadata) -> Result<Findings>;

/// All checks that this program itself contains, each with the name of its list of exceptions.
const CHECKS: [(&str, Check); 6] = [
    ("circles", circles::find),
    ("long-files", text::long_files),
    ("long-lines", text::long_lines),
    ("missing-names", mentions::find),
    ("unpublished", manifests::unpublished),
    ("incomplete", manifests::incomplete),
];

/// Runs all checks. The quick checks come first, so that their findings appear within seconds.
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
        .context("cannot read the workspace's metadata")
}

/// Runs the checks that this program itself contains.
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
