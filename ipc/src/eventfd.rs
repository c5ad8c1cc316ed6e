//! Eventfds that another process has, too.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, IoSliceMut, ReadWriteFlags, ioctl_fionbio, preadv2};

use crate::poll::{Interest, poll};

/// An eventfd that another process has, too.
///
/// The other process may signal it, take from it, fill its counter, or change its flags at any
/// moment: O_NONBLOCK belongs to the eventfd, not to the descriptor. None of that makes
/// [`take`](Self::take) block. [`signal`](Self::signal) blocks only while the peer keeps O_NONBLOCK
/// off and the counter full, and a signal handler gets it out of there; the kernel has no write to
/// an eventfd that never blocks. Threads that nothing interrupts have
/// [`signal_if_room`](Self::signal_if_room). The peer can also keep the eventfd readable without
/// end, by signalling it or with EFD_SEMAPHORE and a large counter.
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

/// Why a descriptor was not taken as an eventfd.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SharedEventFdError {
    /// It is something else, or its counter is full already.
    #[error("not an eventfd with room in its counter")]
    NotAnEventFd,
    /// The operating system refuses to say what it is, or to change its flags.
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
    /// Whether it is an eventfd is told by how it behaves, because a jailed process has no `/proc`
    /// to ask: no other kind of file that this was tried with both refuses a read of 4 bytes as
    /// invalid and has room to write. That refuses regular and other file systems' files, sockets,
    /// pipes, memfds, timerfds, signalfds, epoll instances and devices such as `/dev/zero`, without
    /// asking a file system anything. It cannot be told who else has the eventfd, or whether
    /// EFD_SEMAPHORE is set.
    ///
    /// # Errors
    ///
    /// [`SharedEventFdError`]; the descriptor is closed then.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, SharedEventFdError> {
        let eventfd = Self(fd);
        // An eventfd gives 8 bytes or none; this takes nothing from its counter.
        if eventfd.read(&mut [0; 4]) != Err(Errno::INVAL) {
            return Err(SharedEventFdError::NotAnEventFd);
        }
        if !eventfd.has_room()? {
            return Err(SharedEventFdError::NotAnEventFd);
        }
        ioctl_fionbio(&eventfd, true).map_err(io::Error::from)?;
        Ok(eventfd)
    }

    /// Signals it. A counter that is full counts as signalled: whoever waits has a signal to take.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Interrupted`] when a signal handler ran while this was blocked: nothing was
    /// signalled, and the caller decides whether to try again. Any other error means that the
    /// descriptor cannot be used.
    pub fn signal(&self) -> io::Result<()> {
        match rustix::io::write(&self.0, &1u64.to_ne_bytes()) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Signals it as [`signal`](Self::signal) does, but looks first whether that would block. For
    /// threads that nothing interrupts: only a peer that fills the counter between the look and the
    /// signal makes them block.
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

    /// Takes the signals that came so far; false when there were none. Never blocks.
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

    /// Whether its counter is not full now.
    fn has_room(&self) -> io::Result<bool> {
        let [writable] = poll([Interest::writable(self)], Some(Duration::ZERO))?;
        Ok(writable)
    }

    /// Reads without blocking, whatever the flags are: the peer may change them at any moment.
    fn read(&self, bytes: &mut [u8]) -> rustix::io::Result<usize> {
        // This offset asks for a plain read (preadv2(2)).
        const NO_OFFSET: u64 = u64::MAX;
        let parts = &mut [IoSliceMut::new(bytes)];
        preadv2(&self.0, parts, NO_OFFSET, ReadWriteFlags::NOWAIT)
    }
}

impl AsFd for SharedEventFd {
    /// Readable when there is a signal to take.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests;
