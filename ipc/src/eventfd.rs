//! Eventfds that are shared with another process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, IoSliceMut, ReadWriteFlags, ioctl_fionbio, preadv2};

use crate::poll::{Interest, poll};

/// An eventfd that is shared with another process.
///
/// The other process may signal the eventfd, take its signals, fill its counter, or clear
/// O_NONBLOCK at any moment: all descriptors of the eventfd share that flag. [`take`](Self::take)
/// never blocks nonetheless. [`signal`](Self::signal) blocks only while O_NONBLOCK is clear and the
/// counter is full, and only until a signal handler interrupts the call: the kernel has no write to
/// an eventfd that never blocks. Threads that no signal handler interrupts use
/// [`signal_if_room`](Self::signal_if_room). The other process can also keep the eventfd readable
/// without end, by signalling it or with EFD_SEMAPHORE and a large counter.
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

/// The reason why a descriptor was refused as an eventfd.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SharedEventFdError {
    /// The descriptor is not an eventfd, or the counter of the eventfd is full.
    #[error("not an eventfd with room in its counter")]
    NotAnEventFd,
    /// The operating system fails to examine the descriptor or to change its flags.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl SharedEventFd {
    /// A new eventfd: its counter is 0, and it does not block.
    ///
    /// # Errors
    ///
    /// When the operating system is out of descriptors.
    pub fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(eventfd(0, flags)?))
    }

    /// Takes a descriptor that came from another process, and sets O_NONBLOCK.
    ///
    /// An eventfd is recognised by its behaviour, because a jailed process has no `/proc`. An
    /// eventfd refuses a read of 4 bytes as invalid, and is writable. No other kind of file that
    /// was tested does both. Regular files, other files of file systems, sockets, pipes, memfds,
    /// timerfds, signalfds, epoll instances and devices such as `/dev/zero` are refused, and no
    /// file system gets a request. The check cannot tell which other processes have the eventfd, or
    /// whether EFD_SEMAPHORE is set.
    ///
    /// # Errors
    ///
    /// [`SharedEventFdError`]. The descriptor is closed then.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, SharedEventFdError> {
        let eventfd = Self(fd);
        // An eventfd refuses a read of fewer than 8 bytes, and its counter keeps its value.
        if eventfd.read(&mut [0; 4]) != Err(Errno::INVAL) {
            return Err(SharedEventFdError::NotAnEventFd);
        }
        if !eventfd.has_room()? {
            return Err(SharedEventFdError::NotAnEventFd);
        }
        ioctl_fionbio(&eventfd, true).map_err(io::Error::from)?;
        Ok(eventfd)
    }

    /// Signals the eventfd. A full counter counts as success, because the reader already has
    /// signals to take.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Interrupted`] when a signal handler ran while this call was blocked. The
    /// eventfd was not signalled then, and the caller decides whether to try again. Any other error
    /// means that the descriptor cannot be used.
    pub fn signal(&self) -> io::Result<()> {
        match rustix::io::write(&self.0, &1u64.to_ne_bytes()) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Signals the eventfd as [`signal`](Self::signal) does, but only if its counter has room. For
    /// threads that no signal handler interrupts: the call blocks only if the peer fills the
    /// counter after the check.
    ///
    /// # Errors
    ///
    /// As for [`signal`](Self::signal).
    pub fn signal_if_room(&self) -> io::Result<()> {
        if self.has_room()? {
            self.signal()?;
        }
        Ok(())
    }

    /// Takes the signals that are pending; false if there are none. Never blocks.
    ///
    /// # Errors
    ///
    /// When the descriptor cannot be used.
    pub fn take(&self) -> io::Result<bool> {
        match self.read(&mut [0; 8]) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Another descriptor of the same eventfd, to be given away.
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

    /// Reads without blocking, even if the peer has cleared O_NONBLOCK.
    fn read(&self, bytes: &mut [u8]) -> rustix::io::Result<usize> {
        // With this offset, preadv2(2) reads as readv(2) does. An eventfd has no offsets.
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
