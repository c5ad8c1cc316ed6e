//! The root file system of all Debian guests, made by debootstrap.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::cache::Cache;
use crate::progress;
use crate::provision::{debian_tools, mirror};
use crate::tree::{KEYRING, Tree, quiet};

/// The name of the cache folder with the root file system. When the content changes, increase the
/// number in the name.
const NAME: &str = "bookworm-debootstrap-1";
const SUITE: &str = "bookworm";

/// The name of the package that guests install. apt's cache in the root file system contains this
/// package.
const PACKAGE: &str = "hello";

/// Whether this process can make a root file system. The process has to run as root, because the
/// files belong to several users.
pub fn possible() -> bool {
    rustix::process::geteuid().is_root()
}

/// Returns the path of the root file system. Makes the root file system if it is not in the cache
/// yet.
pub fn root() -> Result<PathBuf> {
    ensure!(possible(), "only root can make a root file system");
    let tools = debian_tools()?;
    let made = Cache::open()?.folder(NAME, |folder| {
        let start = Instant::now();
        progress("making a root file system with debootstrap (about 30 s)");
        make(&tools, folder).context("cannot make a root file system")?;
        let seconds = start.elapsed().as_secs();
        progress(format!("made a root file system in {seconds} s"));
        Ok(())
    })?;
    Ok(made.join("root"))
}

fn make(tools: &Tree, folder: &Path) -> Result<()> {
    let root = folder.join("root");
    let share = tools.root().join("usr/share/debootstrap");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut search = vec![with_wget(tools, folder)?];
    search.extend(std::env::split_paths(&path));
    quiet(
        Command::new("sh")
            .arg(tools.root().join("usr/sbin/debootstrap"))
            .args(["--variant=minbase", &format!("--include=udev,{PACKAGE}")])
            .arg(format!("--keyring={KEYRING}"))
            .arg(SUITE)
            .arg(&root)
            .arg(mirror()?)
            .env("DEBOOTSTRAP_DIR", share)
            .env("PATH", std::env::join_paths(search)?),
    )?;
    keep_the_package(&root.join("var/cache/apt/archives"))
}

/// Makes a folder with the program wget, because debootstrap needs wget and the machine may not
/// have it.
fn with_wget(tools: &Tree, folder: &Path) -> Result<PathBuf> {
    let wget = tools.program("wget")?.command();
    let words = std::iter::once(wget.get_program()).chain(wget.get_args());
    let words: Vec<_> = words.map(|word| format!("'{}'", word.display())).collect();
    let bin = folder.join("bin");
    fs::create_dir(&bin)?;
    crate::tree::script(
        &bin.join("wget"),
        &format!("exec {} \"$@\"\n", words.join(" ")),
    )?;
    Ok(bin)
}

/// Removes all packages from apt's cache except the package that guests install.
fn keep_the_package(archives: &Path) -> Result<()> {
    for entry in fs::read_dir(archives)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".deb") && !name.starts_with(PACKAGE) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
