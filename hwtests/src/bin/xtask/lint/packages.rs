//! Whether each library makes a package that builds by itself.

use cargo_metadata::Metadata;
use hwtests::{Context, Result, ensure, progress};

use super::manifests::is_published;
use crate::cargo;

/// Makes all packages and builds them, as a registry's users would.
///
/// The build takes most of the time, about half a minute on 2 processors in a clean clone. It shows
/// that no file was left out, and that a crate asks for all features that it uses. In the workspace
/// it gets those of its neighbours, too.
pub fn check(metadata: &Metadata) -> Result<()> {
    let names: Vec<_> = metadata
        .workspace_packages()
        .into_iter()
        .filter(|package| is_published(package))
        .flat_map(|package| ["--package".to_owned(), package.name.to_string()])
        .collect();
    progress("cargo package (each library)");
    let output = cargo::command()
        .args(["package", "--allow-dirty"])
        .args(names)
        .output()
        .context("cannot run cargo")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let is_clean = output.status.success() && !said.lines().any(|line| line.starts_with("warning"));
    ensure!(is_clean, "cargo package failed or warned:\n{said}");
    Ok(())
}
