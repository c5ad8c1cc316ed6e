//! Checks that the package of each library builds outside the workspace.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use cargo_metadata::{Metadata, Package};
use hwtests::{Context, Result, ensure, progress};

use super::manifests::is_published;
use crate::cargo;

/// Makes the packages of all libraries, and builds each package from its own files.
///
/// The build shows that the package contains all its files, and that the crate enables all features
/// of its dependencies that it uses. In our workspace, a crate also gets the features that other
/// crates of the workspace enable.
///
/// `cargo package` could build the packages, too. But as long as the versions stay the same, it may
/// build a library with packages of our other libraries from an earlier run.
pub fn check(metadata: &Metadata) -> Result<()> {
    progress("cargo package (each library)");
    let packages = metadata.workspace_packages();
    let packages: Vec<_> = packages
        .into_iter()
        .filter(|package| is_published(package))
        .collect();
    let mut command = cargo::command();
    command.args(["package", "--no-verify", "--allow-dirty"]);
    for package in &packages {
        command.args(["--package", &package.name]);
    }
    run_cleanly(command)?;

    let folder = metadata.target_directory.join("packages");
    unpack(metadata, &packages, folder.as_std_path()).context("cannot unpack the packages")?;
    // The packages are built one by one, because one build of all packages would merge the features
    // that the packages enable.
    for package in &packages {
        let mut command = cargo::command();
        command.args(["check", "--package", &package.name]);
        command.args(["--manifest-path", folder.join("Cargo.toml").as_str()]);
        command.args(["--target-dir", metadata.target_directory.as_str()]);
        run_cleanly(command)?;
    }
    Ok(())
}

/// Runs a cargo command. It is an error if cargo fails or prints a warning.
fn run_cleanly(mut command: Command) -> Result<()> {
    let output = command.output().context("cannot run cargo")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let is_clean = output.status.success() && !said.lines().any(|line| line.starts_with("warning"));
    let arguments: Vec<_> = command
        .get_args()
        .map(|text| text.to_string_lossy())
        .collect();
    ensure!(
        is_clean,
        "cargo {} failed or warned:\n{said}",
        arguments.join(" ")
    );
    Ok(())
}

/// Unpacks packages into a new workspace, in which they depend on each other. Their other
/// dependencies have the same versions as in our workspace.
fn unpack(metadata: &Metadata, packages: &[&Package], folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir(folder)?;
    let mut members = String::from("[workspace]\nresolver = \"3\"\nmembers = [\"*\"]\n");
    members += "\n[patch.crates-io]\n";
    for Package { name, version, .. } in packages {
        let file = metadata
            .target_directory
            .join(format!("package/{name}-{version}.crate"));
        // The files get the current time, because cargo decides by the times of files whether to
        // build again.
        let mut tar = Command::new("tar");
        tar.args([
            "--extract",
            "--touch",
            "--file",
            file.as_str(),
            "--directory",
        ])
        .arg(folder);
        ensure!(tar.status()?.success(), "{tar:?} failed");
        writeln!(members, "{name} = {{ path = \"{name}-{version}\" }}")?;
    }
    fs::write(folder.join("Cargo.toml"), members)?;
    fs::copy(cargo::root().join("Cargo.lock"), folder.join("Cargo.lock"))?;
    Ok(())
}
