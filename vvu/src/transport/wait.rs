//! Waiting for eventfds.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use vmm_sys_util::eventfd::EventFd;

/// Waits until some of these are readable, and says which. None is when time is up or a signal
/// came.
pub fn poll_readable(
    fds: &[BorrowedFd<'_>],
    timeout: Option<Duration>,
) -> Result<Vec<bool>, Errno> {
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    let mut polled: Vec<_> = fds
        .iter()
        .map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN))
        .collect();
    match poll(&mut polled, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(errno),
    }
    let ready = polled.iter().map(|fd| !fd.revents().is_empty());
    Ok(ready.collect())
}

/// Makes an eventfd unreadable until it is signalled again.
pub fn clear(eventfd: &EventFd) {
    // It fails only when the eventfd is not readable.
    let _ = eventfd.read();
}
