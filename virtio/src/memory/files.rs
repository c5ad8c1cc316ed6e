//! The kinds of files that a peer may share as its memory.

use std::os::fd::AsFd;

use rustix::fs::fcntl_get_seals;

/// The kinds of files that a peer may share as its memory.
///
/// A peer chooses the file of its memory. If the file is in a file system in user space (FUSE), the
/// server of this file system may never answer. A thread that maps the file or accesses the memory
/// then blocks forever, and no signal ends the process. So by default, only memfds and files of
/// tmpfs and hugetlbfs are allowed. The kernel alone serves such files.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryFiles {
    any: bool,
    advice: &'static str,
}

/// A file is of a kind that is not allowed as memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "memory has to be a memfd, or a file of tmpfs or hugetlbfs, because other file systems may not \
     answer{}",
    after_semicolon(.advice)
)]
pub struct MemoryFileError {
    advice: &'static str,
}

fn after_semicolon(advice: &str) -> String {
    if advice.is_empty() {
        return String::new();
    }
    format!("; {advice}")
}

impl MemoryFiles {
    /// Memfds, and files of tmpfs and hugetlbfs. `advice` tells users how they can allow other
    /// files. The text of [`MemoryFileError`] ends with this advice.
    pub fn in_memory(advice: &'static str) -> Self {
        Self { any: false, advice }
    }

    /// Files of any kind, on file systems that are trusted to answer.
    pub fn any() -> Self {
        Self {
            any: true,
            ..Self::default()
        }
    }

    /// Checks the kind of a peer's file. Call this before anything else uses the file: its file
    /// system may never answer, and then any other use may block forever. The check itself asks
    /// only the kernel.
    ///
    /// # Errors
    ///
    /// [`MemoryFileError`] if the kind is not allowed.
    pub fn check(&self, file: impl AsFd) -> Result<(), MemoryFileError> {
        // Only files of these kinds have seals.
        if self.any || fcntl_get_seals(file).is_ok() {
            return Ok(());
        }
        let advice = self.advice;
        Err(MemoryFileError { advice })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_utils::anonymous_file;
    use rustix::fs::{MemfdFlags, memfd_create};
    use std::fs::File;

    #[test]
    fn only_files_in_memory_are_allowed_by_default() {
        let files = MemoryFiles::default();
        files.check(&*anonymous_file(1)).unwrap();
        if let Ok(huge) = memfd_create("huge", MemfdFlags::HUGETLB) {
            files.check(&huge).unwrap();
        }
        let shared = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        files.check(shared.as_file()).unwrap();
        for path in ["/dev/zero", "/proc/self/maps", "/proc/self/exe", "/"] {
            let file = File::open(path).unwrap();
            assert!(files.check(&file).is_err(), "{path}");
            MemoryFiles::any().check(&file).unwrap();
        }
        let (pipe, _) = std::io::pipe().unwrap();
        assert!(files.check(&pipe).is_err());
    }

    #[test]
    fn advice_ends_the_text_of_the_error() {
        let file = File::open("/dev/zero").unwrap();
        let error = MemoryFiles::in_memory("ask").check(&file).unwrap_err();
        assert!(
            error.to_string().ends_with("may not answer; ask"),
            "{error}"
        );
        let error = MemoryFiles::default().check(&file).unwrap_err();
        assert!(error.to_string().ends_with("may not answer"), "{error}");
    }
}
