//! Waits for events at descriptors.

use std::array;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

/// The event to wait for at one descriptor.
#[derive(Clone, Copy, Debug)]
pub enum Interest<'a> {
    /// The descriptor has bytes to read, a peer to accept, or signals of an eventfd to take.
    Readable(BorrowedFd<'a>),
    /// The descriptor has room for bytes to write.
    Writable(BorrowedFd<'a>),
    /// No event. The entry is never ready.
    Nothing,
}

impl<'a> Interest<'a> {
    /// An entry that is ready when the descriptor is readable.
    pub fn readable(fd: &'a impl AsFd) -> Self {
        Self::Readable(fd.as_fd())
    }

    /// An entry that is ready when the descriptor is writable.
    pub fn writable(fd: &'a impl AsFd) -> Self {
        Self::Writable(fd.as_fd())
    }

    fn fd(&self) -> Option<BorrowedFd<'a>> {
        match *self {
            Self::Readable(fd) | Self::Writable(fd) => Some(fd),
            Self::Nothing => None,
        }
    }

    fn flags(&self) -> PollFlags {
        match self {
            Self::Readable(_) => PollFlags::IN,
            Self::Writable(_) => PollFlags::OUT,
            Self::Nothing => PollFlags::empty(),
        }
    }
}

/// Waits until at least one entry of `interests` is ready. Returns for each entry whether it is
/// ready.
///
/// An entry is also ready if its descriptor hung up or failed. The next read or write reports the
/// reason. No entry is ready if `timeout` has passed or a signal handler ran, so the caller has to
/// check its own deadline and call again. A `timeout` of `None` means no limit.
///
/// # Errors
///
/// When the operating system lacks memory.
pub fn poll<const N: usize>(
    interests: [Interest<'_>; N],
    timeout: Option<Duration>,
) -> io::Result<[bool; N]> {
    // A timeout that is too long for the kernel's type counts as no limit.
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    let Some(any) = interests.iter().find_map(Interest::fd) else {
        rustix::event::poll(&mut [], timeout.as_ref()).or_else(ignore_interruption)?;
        return Ok([false; N]);
    };
    // The kernel needs a descriptor in each entry, so an entry for [`Interest::Nothing`] has the
    // descriptor of another entry, but no events.
    let mut fds = interests
        .map(|interest| PollFd::from_borrowed_fd(interest.fd().unwrap_or(any), interest.flags()));
    rustix::event::poll(&mut fds, timeout.as_ref()).or_else(ignore_interruption)?;
    Ok(array::from_fn(|index| {
        interests[index].fd().is_some() && !fds[index].revents().is_empty()
    }))
}

/// Turns EINTR, which means that a signal handler ran, into the result that no descriptor is ready.
fn ignore_interruption(errno: Errno) -> Result<usize, Errno> {
    match errno {
        Errno::INTR => Ok(0),
        errno => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    const NOW: Option<Duration> = Some(Duration::ZERO);

    #[test]
    fn each_descriptor_is_ready_for_what_was_asked_and_no_more() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let both = || [Interest::readable(&ours), Interest::writable(&ours)];
        assert_eq!(poll(both(), NOW).unwrap(), [false, true]);
        theirs.write_all(&[1]).unwrap();
        assert_eq!(poll(both(), NOW).unwrap(), [true, true]);
    }

    #[test]
    fn a_peer_that_left_makes_its_socket_ready() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert_eq!(poll([Interest::readable(&ours)], None).unwrap(), [true]);
    }

    #[test]
    fn nothing_is_never_ready_even_beside_a_descriptor_that_is() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let interests = [Interest::Nothing, Interest::readable(&ours)];
        assert_eq!(poll(interests, None).unwrap(), [false, true]);
        assert_eq!(poll([Interest::Nothing; 2], NOW).unwrap(), [false; 2]);
    }
}
