//! Builds the workspace's programs, so that tests never run outdated programs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::progress;

/// The programs that this process has already built.
static BUILT: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());

/// The environment variable with the cargo profile of the programs under test. The default profile
/// is `release`.
pub const PROFILE: &str = "VVU_PROFILE";

/// Builds the program `name` of `package` if it is out of date, and returns its path.
pub fn build(package: &str, name: &str) -> Result<PathBuf> {
    build_target(package, "--bin", name)
}

/// Builds the example `name` of `package` if it is out of date, and returns its path.
pub fn example(package: &str, name: &str) -> Result<PathBuf> {
    build_target(package, "--example", name)
}

fn build_target(package: &str, kind: &str, name: &str) -> Result<PathBuf> {
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(file) = built.get(name) {
        return Ok(file.clone());
    }
    progress(format!("building {name}"));
    let file = cargo_build(package, kind, name)?;
    built.insert(name.to_owned(), file.clone());
    Ok(file)
}

fn cargo_build(package: &str, kind: &str, name: &str) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let profile = std::env::var(PROFILE).unwrap_or_else(|_| "release".to_owned());
    let output = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--profile",
            &profile,
            "--package",
            package,
            kind,
            name,
        ])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cannot build {name}; see cargo's messages above");
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let file = messages.lines().find_map(|line| executable(line, name));
    file.with_context(|| format!("cargo did not build {name}"))
}

fn executable(message: &str, name: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let is_it = message["target"]["name"] == name && message["reason"] == "compiler-artifact";
    message["executable"]
        .as_str()
        .filter(|_| is_it)
        .map(PathBuf::from)
}
