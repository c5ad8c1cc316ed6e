//! Gives a program to the kernel. The only unsafe code here.

use std::io;

use policy_compiler::{Instruction, MAX_INSTRUCTIONS};

/// Of linux/seccomp.h.
const SECCOMP_SET_MODE_FILTER: libc::c_long = 1;
const SECCOMP_FILTER_FLAG_TSYNC: libc::c_long = 1;

/// Why there is no filter now.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// No policies were written for it.
    #[error("there are no seccomp policies for this architecture")]
    Architecture,
    /// The program is empty or too long.
    #[error("a seccomp program of {0} instructions")]
    Length(usize),
    /// The right to get new privileges could not be given up.
    #[error("cannot set no_new_privs: {0}")]
    NoNewPrivileges(#[source] io::Error),
    /// The kernel does not take the filter.
    #[error("the kernel takes no seccomp filter: {0}")]
    Seccomp(#[source] io::Error),
    /// A thread has a filter that the others have not.
    #[error("thread {0} has another seccomp filter already")]
    Thread(libc::c_long),
}

/// Sets no_new_privs and puts the program on all threads.
pub(crate) fn install(program: &[Instruction]) -> Result<(), InstallError> {
    let len = match u16::try_from(program.len()) {
        Ok(len) if (1..=MAX_INSTRUCTIONS).contains(&program.len()) => len,
        _ => return Err(InstallError::Length(program.len())),
    };
    let description = libc::sock_fprog {
        len,
        // The kernel only reads it.
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the call takes numbers only.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(InstallError::NoNewPrivileges(io::Error::last_os_error()));
    }
    // SAFETY: the description and the program, whose instructions are laid out as the kernel's
    // (`Instruction` is `sock_filter`), live until the call returns; the kernel copies them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SECCOMP_SET_MODE_FILTER,
            SECCOMP_FILTER_FLAG_TSYNC,
            &raw const description,
        )
    };
    match result {
        0 => Ok(()),
        -1 => Err(InstallError::Seccomp(io::Error::last_os_error())),
        thread => Err(InstallError::Thread(thread)),
    }
}

const _: () = {
    assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>());
    assert!(align_of::<Instruction>() == align_of::<libc::sock_filter>());
};
