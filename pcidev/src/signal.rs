//! Eventfds that are shared with another process.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use vmm_sys_util::eventfd::EventFd;

/// An eventfd of another process, which can do nothing with it that would block this one.
#[derive(Debug)]
pub struct Signal(OwnedFd);

impl Signal {
    /// Takes an eventfd and makes it non-blocking, which its other users notice, too.
    ///
    /// # Errors
    ///
    /// Whatever the operating system says about the file.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = fcntl_getfl(&fd)?;
        fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        Ok(Self(fd))
    }

    /// Signals it.
    ///
    /// # Errors
    ///
    /// When it is no eventfd.
    pub fn signal(&self) -> io::Result<()> {
        match rustix::io::write(&self.0, &1u64.to_ne_bytes()) {
            // The counter is at its limit: a signal is pending already.
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Takes the signals back that came so far; false when there were none.
    ///
    /// # Errors
    ///
    /// When it is no eventfd.
    pub fn take(&self) -> io::Result<bool> {
        match rustix::io::read(&self.0, &mut [0; 8]) {
            Ok(8) => Ok(true),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Signal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Another descriptor of an eventfd, to be given away.
///
/// # Errors
///
/// When the process has no descriptors left.
pub fn duplicate(eventfd: &EventFd) -> io::Result<OwnedFd> {
    // SAFETY: it is open as long as `eventfd` is, which is borrowed for longer.
    let fd = unsafe { BorrowedFd::borrow_raw(eventfd.as_raw_fd()) };
    fd.try_clone_to_owned()
}
