//! Makes SIGINT and SIGTERM available as events of a file descriptor that a program can wait for.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// A file descriptor that becomes readable when SIGINT or SIGTERM arrives.
#[derive(Debug)]
pub struct StopSignal {
    fd: OwnedFd,
}

impl StopSignal {
    /// Blocks SIGINT and SIGTERM in this thread, and makes a file descriptor from which these
    /// signals can be read. Call this function before the process has other threads, because only
    /// threads that this thread starts later also block the signals.
    ///
    /// # Errors
    ///
    /// When the operating system is out of file descriptors or memory.
    pub fn install() -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the pointers point to `set`. sigemptyset initialises it before the other calls
        // change or read it. pthread_sigmask accepts null for the old set.
        let fd = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
            libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
            match libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) {
                0 => libc::signalfd(-1, set.as_ptr(), libc::SFD_NONBLOCK | libc::SFD_CLOEXEC),
                error => return Err(io::Error::from_raw_os_error(error)),
            }
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd has just made this descriptor, so it is open and has no other owner.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd })
    }

    /// Takes a pending signal. Returns false if no signal is pending.
    ///
    /// # Errors
    ///
    /// When the descriptor cannot be read.
    pub fn take(&self) -> io::Result<bool> {
        let mut signal = [0; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.fd, &mut signal) {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::AGAIN) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for StopSignal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
