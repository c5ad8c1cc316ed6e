//! Runs cargo in the workspace's folder.

use std::path::Path;
use std::process::Command;

use hwtests::binaries::PROFILE;
use hwtests::{Context, Result, ensure, progress};

/// The path of the workspace's folder.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Runs cargo in the workspace's folder. Tests that cargo runs use programs of the release profile.
pub fn run(arguments: &str) -> Result<()> {
    run_for(arguments, "release")
}

/// Runs cargo in the workspace's folder. Tests that cargo runs use programs of this profile.
pub fn run_for(arguments: &str, profile: &str) -> Result<()> {
    run_with(arguments.split(' ').map(String::from), profile)
}

/// Runs cargo like [`run_for`], with arguments that may contain spaces.
pub fn run_with(arguments: impl Iterator<Item = String>, profile: &str) -> Result<()> {
    let arguments: Vec<_> = arguments.collect();
    let text = arguments.join(" ");
    progress(format!("cargo {text}"));
    let status = command()
        .args(&arguments)
        .env("RUSTDOCFLAGS", "-D warnings")
        .env(PROFILE, profile)
        .status()
        .context("cannot run cargo")?;
    ensure!(
        status.success(),
        "cargo {text} failed; see its messages above"
    );
    Ok(())
}

/// A command that runs cargo in the workspace's folder. If cargo started this program, the command
/// runs the same cargo.
pub fn command() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}
