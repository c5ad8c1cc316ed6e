//! Whether each library makes a package that builds by itself.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use cargo_metadata::{Metadata, Package};
use hwtests::{Context, Result, ensure, progress};

use super::manifests::is_published;
use crate::cargo;

/// Makes all packages and builds each from what is in them.
///
/// The build shows that no file was left out, and that a crate asks for all features that it uses.
/// In the workspace it gets those of its neighbours, too. Cargo can build packages itself, but then
/// it takes a library's neighbours from an earlier run, as long as their versions stay.
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
    // One by one, as together they would share their features.
    for package in &packages {
        let mut command = cargo::command();
        command.args(["check", "--package", &package.name]);
        command.args(["--manifest-path", folder.join("Cargo.toml").as_str()]);
        command.args(["--target-dir", metadata.target_directory.as_str()]);
        run_cleanly(command)?;
    }
    Ok(())
}

/// Runs cargo, which must not even warn.
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

/// Makes a workspace of packages that get each other from there, and the rest as we do.
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
        // With new times, by which cargo tells what to build again.
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
