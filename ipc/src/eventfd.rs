//! Eventfds that are shared with another process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, IoSliceMut, ReadWriteFlags, ioctl_fionbio, preadv2};

use crate::poll::{Interest, poll};
use crate::watchdog;

/// An eventfd that is shared with another process.
///
/// A signal adds 1 to the eventfd's counter, and a read of the counter takes the signals. The other
/// process may signal the eventfd, take its signals or fill its counter at any moment. It may also
/// clear O_NONBLOCK, a flag that all descriptors of an eventfd share. [`take`](Self::take) never
/// blocks, even if O_NONBLOCK is clear. [`signal`](Self::signal) blocks only while O_NONBLOCK is
/// clear and the counter is full, and for about 10 milliseconds at most. The other process can also
/// keep the eventfd readable forever, by repeated signals or with EFD_SEMAPHORE and a large
/// counter.
///
/// # Examples
///
/// ```
/// use ipc::SharedEventFd;
///
/// let ours = SharedEventFd::new()?;
/// // The other process gets this descriptor, for instance beside a message.
/// let theirs = SharedEventFd::from_fd(ours.try_clone()?)?;
/// theirs.signal()?;
/// theirs.signal()?;
/// assert!(ours.take()?, "all signals that came are taken at once");
/// assert!(!ours.take()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SharedEventFd(OwnedFd);

/// The reason for which a descriptor was refused as an eventfd.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SharedEventFdError {
    /// The descriptor is not an eventfd, or the counter of the eventfd is full.
    #[error("not an eventfd with room in its counter")]
    NotAnEventFd,
    /// The operating system cannot examine the descriptor or change its flags.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The peer caused a signal, which is a write to the eventfd, to block.
#[derive(Debug, thiserror::Error)]
#[error("the peer makes signals to its eventfd block")]
struct Blocked;

impl From<Blocked> for io::Error {
    fn from(blocked: Blocked) -> Self {
        Self::new(io::ErrorKind::TimedOut, blocked)
    }
}

impl SharedEventFd {
    /// Makes a non-blocking eventfd whose counter is 0.
    ///
    /// # Errors
    ///
    /// When the operating system is out of descriptors.
    pub fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(eventfd(0, flags)?))
    }

    /// Takes ownership of a descriptor that came from another process, and sets O_NONBLOCK.
    ///
    /// An eventfd is recognised by its behaviour, because a process in a jail has no `/proc`. An
    /// eventfd refuses a read of 4 bytes with EINVAL, and is writable. No other kind of file
    /// behaved like this in the tests. Regular files, other files of file systems, sockets, pipes,
    /// memfds, timerfds, signalfds, epoll instances and devices such as `/dev/zero` are refused.
    /// The check sends no request to a file system, because such a request might block. The check
    /// cannot find out which other processes have the eventfd, or whether EFD_SEMAPHORE is set.
    ///
    /// # Errors
    ///
    /// [`SharedEventFdError`]. After an error, the descriptor is closed.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, SharedEventFdError> {
        let eventfd = Self(fd);
        // An eventfd refuses a read of fewer than 8 bytes and does not change its counter.
        if eventfd.read(&mut [0; 4]) != Err(Errno::INVAL) {
            return Err(SharedEventFdError::NotAnEventFd);
        }
        if !eventfd.has_room()? {
            return Err(SharedEventFdError::NotAnEventFd);
        }
        ioctl_fionbio(&eventfd, true).map_err(io::Error::from)?;
        Ok(eventfd)
    }

    /// Signals the eventfd. If the counter is full, this call succeeds and adds nothing, because
    /// the reader already has signals to take.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::TimedOut`] when the peer made this call block for about 10 milliseconds.
    /// The caller should then no longer signal this eventfd, because the next call may block again.
    /// Any other error means that the descriptor cannot be used, or that the operating system
    /// refuses the thread of [`start_watchdog`](crate::start_watchdog).
    pub fn signal(&self) -> io::Result<()> {
        match watchdog::write(&self.0, &1u64.to_ne_bytes()) {
            Ok(_) => Ok(()),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => Ok(()),
                io::ErrorKind::Interrupted => Err(Blocked.into()),
                _ => Err(error),
            },
        }
    }

    /// Takes the pending signals. Returns false if no signal is pending. Never blocks.
    ///
    /// # Errors
    ///
    /// When the operating system reports an error for the descriptor.
    pub fn take(&self) -> io::Result<bool> {
        match self.read(&mut [0; 8]) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes another descriptor of the same eventfd, for instance for another process.
    ///
    /// # Errors
    ///
    /// When the operating system is out of descriptors.
    pub fn try_clone(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }

    /// Whether the counter has room for another signal.
    fn has_room(&self) -> io::Result<bool> {
        let [writable] = poll([Interest::writable(self)], Some(Duration::ZERO))?;
        Ok(writable)
    }

    /// Reads without blocking, even if the other process has cleared O_NONBLOCK.
    fn read(&self, bytes: &mut [u8]) -> rustix::io::Result<usize> {
        // With this offset, preadv2(2) reads as readv(2) does. An eventfd has no offsets, so the
        // kernel refuses all other offsets.
        const NO_OFFSET: u64 = u64::MAX;
        let parts = &mut [IoSliceMut::new(bytes)];
        preadv2(&self.0, parts, NO_OFFSET, ReadWriteFlags::NOWAIT)
    }
}

impl AsFd for SharedEventFd {
    /// The descriptor is readable when there is a signal to take.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests;
