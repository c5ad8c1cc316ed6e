//! The command-line option for the kinds of files that peers share as memory.

use clap::Args;
use virtio::memory::MemoryFiles;

/// The kinds of files that peers may share as memory.
#[derive(Args, Clone, Copy, Debug, Default)]
#[group(skip)]
pub struct MemoryFileArguments {
    /// Accept memory in a file of any file system. By default, memory has to be a memfd, or a file
    /// of tmpfs (such as /dev/shm) or hugetlbfs. A peer can share a file of a file system that
    /// never answers, and then not even SIGKILL ends the program.
    #[arg(long)]
    pub any_memory_file: bool,
}

impl From<MemoryFileArguments> for MemoryFiles {
    fn from(arguments: MemoryFileArguments) -> Self {
        if arguments.any_memory_file {
            return Self::any();
        }
        Self::in_memory("--any-memory-file allows other files")
    }
}
