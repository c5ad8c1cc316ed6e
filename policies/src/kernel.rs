//! Installs a seccomp program in the kernel.

use std::ffi::c_long;
use std::io;

use policy_compiler::{Instruction, MAX_INSTRUCTIONS};
use seccompiler::{Error, apply_filter_all_threads, sock_filter};

/// The reason why the filter was not installed. After this error, no thread has the filter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// There are no policies for the architecture of this program.
    #[error("there are no seccomp policies for this architecture")]
    Architecture,
    /// The program has this number of instructions. The kernel accepts 1 to 4096.
    #[error("a seccomp program has {0} instructions, but the kernel takes 1 to {MAX_INSTRUCTIONS}")]
    Length(usize),
    /// The kernel refuses to set no_new_privs, which a filter of an unprivileged process requires.
    #[error("cannot set no_new_privs")]
    NoNewPrivileges(#[source] io::Error),
    /// The kernel refuses the filter.
    #[error("the kernel refuses the seccomp filter")]
    Seccomp(#[source] io::Error),
    /// The thread with this id has a filter that the calling thread does not have.
    #[error("thread {0} has another seccomp filter already")]
    Thread(c_long),
}

/// Sets no_new_privs and installs the seccomp program as a filter on all threads.
pub(crate) fn install(program: &[Instruction]) -> Result<(), InstallError> {
    let length = program.len();
    if length > MAX_INSTRUCTIONS {
        return Err(InstallError::Length(length));
    }
    let filter = |&Instruction { code, jt, jf, k }: &Instruction| sock_filter { code, jt, jf, k };
    let program: Vec<_> = program.iter().map(filter).collect();
    apply_filter_all_threads(&program).map_err(|error| match error {
        Error::Prctl(error) => InstallError::NoNewPrivileges(error),
        Error::Seccomp(error) => InstallError::Seccomp(error),
        Error::ThreadSync(thread) => InstallError::Thread(thread),
        // The program is already compiled, so only its length can be wrong.
        Error::EmptyFilter | Error::Backend(_) => InstallError::Length(length),
    })
}
