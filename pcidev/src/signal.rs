//! Eventfds that are shared with another process.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use vmm_sys_util::eventfd::EventFd;

/// An eventfd of another process, which may use it as it likes without blocking this one.
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
        raise(self.0.as_fd())
    }

    /// Takes the signals back that came so far; false when there were none.
    ///
    /// # Errors
    ///
    /// When it is no eventfd.
    pub fn take(&self) -> io::Result<bool> {
        if !is_ready(self.0.as_fd(), PollFlags::IN)? {
            return Ok(false);
        }
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

/// Signals an eventfd that other processes have, too.
///
/// They may have made it one that blocks, so it is asked first. One that fills the counter at the very
/// moment after that stops whoever signals it, until somebody reads.
///
/// # Errors
///
/// When it is no eventfd.
pub fn raise(fd: BorrowedFd<'_>) -> io::Result<()> {
    if !is_ready(fd, PollFlags::OUT)? {
        // The counter is at its limit: a signal is pending already.
        return Ok(());
    }
    match rustix::io::write(fd, &1u64.to_ne_bytes()) {
        Ok(_) | Err(Errno::AGAIN) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn is_ready(fd: BorrowedFd<'_>, what: PollFlags) -> io::Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(fd, what)];
    match poll(&mut fds, Some(&Timespec::default())) {
        Ok(ready) => Ok(ready > 0),
        // Asked again it might be.
        Err(Errno::INTR) => Ok(true),
        Err(errno) => Err(errno.into()),
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    /// The signal does not block for long, whatever its other users did to it.
    #[test]
    fn a_full_counter_blocks_nobody() {
        let theirs = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let signal = Signal::new(theirs.try_clone().unwrap()).unwrap();
        fcntl_setfl(&theirs, OFlags::empty()).unwrap();
        assert!(!signal.take().unwrap(), "empty");
        rustix::io::write(&theirs, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        let (done, wait) = channel();
        thread::spawn(move || {
            signal.signal().unwrap();
            done.send(signal.take().unwrap()).unwrap();
        });
        assert!(wait.recv_timeout(Duration::from_secs(20)).unwrap());
        assert!(!is_ready(theirs.as_fd(), PollFlags::IN).unwrap());
    }
}
