//! Folders for the files of a test or demo, such as logs, images and sockets.

use std::fs::{self, DirEntry};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// The folder for the files with guest memory.
const MEMORY: &str = "/dev/shm";

/// The folders of all runs of this process. A signal handler removes the folders when a signal ends
/// the process.
static RUNS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// The folder for the files of one test or demo. When this value is dropped, the folder is kept and
/// its path is printed. [`RunDir::discard`] removes the folder instead.
///
/// Sockets and memory files are removed in both cases.
#[derive(Debug)]
pub struct RunDir {
    folder: Option<TempDir>,
    path: PathBuf,
}

impl RunDir {
    /// Creates a folder whose name begins with `vvu-NAME`.
    pub fn new(name: &str) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("vvu-{name}-"))
            .tempdir()
            .context("cannot create a temporary folder; set TMPDIR to a writable folder")?;
        let path = folder.path().to_owned();
        runs().push(path.clone());
        Ok(Self {
            folder: Some(folder),
            path,
        })
    }

    /// The path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The path of a file in `/dev/shm` for a guest's memory. The name is unique to this run, and
    /// the file is removed when the [`RunDir`] is dropped.
    pub fn memory(&self, name: &str) -> PathBuf {
        Path::new(MEMORY).join(memory_prefix(&self.path) + name)
    }

    /// Creates a disk image of `size` bytes that reads as zeroes.
    pub fn image(&self, name: &str, size: u64) -> Result<PathBuf> {
        let path = self.file(name);
        fs::File::create_new(&path)
            .and_then(|file| file.set_len(size))
            .with_context(|| format!("cannot create the disk image {}", path.display()))?;
        Ok(path)
    }

    /// Removes the folder, which is not needed after a successful run.
    pub fn discard(mut self) -> Result<()> {
        match self.folder.take() {
            Some(folder) => folder
                .close()
                .context("cannot remove the folder of the run"),
            None => Ok(()),
        }
    }

    /// Removes all files except the logs, and returns the path of the folder.
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

/// Removes the folders and memory files of all runs. This function is for a process that is about
/// to end.
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
    fn a_discarded_run_leaves_no_files() {
        let run = RunDir::new("test").unwrap();
        let (path, memory) = (run.path().to_owned(), run.memory("ram"));
        fs::write(&memory, "x").unwrap();
        run.discard().unwrap();
        assert!(!path.exists() && !memory.exists());
    }

    #[test]
    fn a_failed_run_keeps_its_logs_but_no_sockets_and_memory() {
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
