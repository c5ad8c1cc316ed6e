//! A folder for the files of one test or demo: logs, images, sockets, guest memory.

use std::fs::{self, DirEntry};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// Where guests' memory files are.
const MEMORY: &str = "/dev/shm";

/// The folders of this process's runs, for an interrupt to remove.
static RUNS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A run's folder. Kept, and its path printed, unless [`RunDir::discard`] is called.
///
/// Sockets and memory files go either way.
#[derive(Debug)]
pub struct RunDir {
    folder: Option<TempDir>,
    path: PathBuf,
}

impl RunDir {
    /// Makes a folder whose name begins with `vvu-NAME`.
    pub fn new(name: &str) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("vvu-{name}-"))
            .tempdir()
            .context("cannot make a folder for temporary files; set TMPDIR to a writable one")?;
        let path = folder.path().to_owned();
        runs().push(path.clone());
        Ok(Self {
            folder: Some(folder),
            path,
        })
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A file in `/dev/shm` for a guest's memory: its name is unique, and it goes with the folder.
    pub fn memory(&self, name: &str) -> PathBuf {
        Path::new(MEMORY).join(memory_prefix(&self.path) + name)
    }

    /// Makes a disk image full of zeroes.
    pub fn image(&self, name: &str, size: u64) -> Result<PathBuf> {
        let path = self.file(name);
        fs::File::create_new(&path)
            .and_then(|file| file.set_len(size))
            .with_context(|| format!("cannot make the disk image {}", path.display()))?;
        Ok(path)
    }

    /// Removes the folder: the run went well and nobody needs its logs.
    pub fn discard(mut self) -> Result<()> {
        match self.folder.take() {
            Some(folder) => folder.close().context("cannot remove the run's folder"),
            None => Ok(()),
        }
    }

    /// Removes all but the logs: the run went well and its logs may interest someone.
    pub fn keep_logs(mut self) -> PathBuf {
        self.remove_files(|entry| entry.path().extension() != Some("log".as_ref()));
        self.folder.take().map(TempDir::keep);
        self.path.clone()
    }

    fn remove_files(&self, unwanted: impl Fn(&DirEntry) -> bool) {
        let Ok(entries) = fs::read_dir(&self.path) else {
            return;
        };
        for entry in entries.flatten().filter(unwanted) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        remove_memory(&self.path);
        runs().retain(|path| *path != self.path);
        if let Some(folder) = self.folder.take() {
            self.remove_files(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()));
            eprintln!("==> logs kept in {}", folder.keep().display());
        }
    }
}

/// Removes the folders and memory files of all runs: the process is about to end in their midst.
pub fn remove_all() {
    for path in runs().drain(..) {
        remove_memory(&path);
        let _ = fs::remove_dir_all(path);
    }
}

fn runs() -> MutexGuard<'static, Vec<PathBuf>> {
    RUNS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn memory_prefix(run: &Path) -> String {
    format!("{}-", run.file_name().unwrap_or_default().to_string_lossy())
}

fn remove_memory(run: &Path) {
    let prefix = memory_prefix(run);
    let Ok(entries) = fs::read_dir(MEMORY) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_discarded_run_leaves_nothing() {
        let run = RunDir::new("test").unwrap();
        let (path, memory) = (run.path().to_owned(), run.memory("ram"));
        fs::write(&memory, "x").unwrap();
        run.discard().unwrap();
        assert!(!path.exists() && !memory.exists());
    }

    #[test]
    fn a_failed_run_keeps_logs_only() {
        let run = RunDir::new("test").unwrap();
        let (path, memory) = (run.path().to_owned(), run.memory("ram"));
        fs::write(&memory, "x").unwrap();
        fs::write(run.file("a.log"), "x").unwrap();
        drop(UnixListener::bind(run.file("a.sock")).unwrap());
        drop(run);
        assert!(path.join("a.log").exists() && !path.join("a.sock").exists());
        assert!(!memory.exists());
        fs::remove_dir_all(path).unwrap();
    }
}
