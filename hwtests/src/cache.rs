//! A cache of downloads, which is kept between runs of the tests. The cache is outside the
//! repository. A lock ensures that only one process at a time fills a folder of the cache.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The cache folder. Its path is `$VVU_CACHE`, or `vvu-block` in the user's cache folder.
#[derive(Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens the cache, and creates its folder if it does not exist.
    pub fn open() -> Result<Self> {
        let root = root()?;
        fs::create_dir_all(&root)
            .with_context(|| format!("cannot create the cache folder {}", root.display()))?;
        Ok(Self { root })
    }

    /// Waits for an exclusive lock on `name`, and returns the locked file. The lock is released
    /// when the file is dropped.
    pub fn lock(&self, name: &str) -> Result<File> {
        let path = self.root.join(format!("{name}.lock"));
        let file = File::create(&path)
            .with_context(|| format!("cannot create the lock file {}", path.display()))?;
        file.lock()
            .with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(file)
    }

    /// Returns the path of the folder `name` in the cache. If the folder does not exist yet, calls
    /// `build` to fill it.
    ///
    /// `build` fills a folder with a temporary name, which is renamed afterwards. So the folder
    /// `name` is always complete.
    pub fn folder(&self, name: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let done = self.root.join(name);
        let _lock = self.lock(name)?;
        if done.exists() {
            return Ok(done);
        }
        let partial = self.root.join(format!("{name}.partial"));
        remove_if_present(&partial)?;
        fs::create_dir(&partial)?;
        build(&partial)?;
        fs::rename(&partial, &done)
            .with_context(|| format!("cannot rename a folder to {}", done.display()))?;
        Ok(done)
    }
}

fn root() -> Result<PathBuf> {
    if let Some(path) = env::var_os("VVU_CACHE") {
        return Ok(path.into());
    }
    let user = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cache")))
        .context("no home directory for the cache; set VVU_CACHE to a folder")?;
    Ok(user.join("vvu-block"))
}

fn remove_if_present(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path)
            .with_context(|| format!("cannot remove the unfinished {}", path.display()))?;
    }
    Ok(())
}
