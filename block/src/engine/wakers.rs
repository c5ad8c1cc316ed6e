//! What wakes a sleeping engine.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use vmm_sys_util::eventfd::EventFd;

/// How often a ring without a kick eventfd is looked at.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// What wakes a sleeping engine, apart from its own completions.
#[derive(Debug)]
pub(crate) struct Wakers {
    /// The driver added requests; `None`: sleep is short.
    pub kick: Option<Arc<EventFd>>,
    /// The worker has to look at its stop flag.
    pub stop: Arc<EventFd>,
}

/// The whole range of an eventfd's counter is of no interest, only that it is reset.
pub(super) fn reset(eventfd: BorrowedFd<'_>) -> io::Result<()> {
    use rustix::io::{IoSliceMut, ReadWriteFlags, preadv2};
    let mut counter = [0; 8];
    // An eventfd of the other side may block, and the other side may have read it in between.
    let counter = &mut [IoSliceMut::new(&mut counter)];
    match preadv2(eventfd, counter, u64::MAX, ReadWriteFlags::NOWAIT) {
        Ok(8) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(()),
        Ok(_) => Err(io::ErrorKind::InvalidData.into()),
        Err(error) => Err(error.into()),
    }
}

/// Waits for any of `N` eventfds and says which can be read.
pub(super) fn poll_readable<const N: usize>(
    eventfds: &[&EventFd; N],
    timeout: Option<Duration>,
) -> io::Result<[bool; N]> {
    let files = eventfds.map(borrow);
    let mut polls = files
        .each_ref()
        .map(|file| PollFd::new(file, PollFlags::IN));
    let timeout = timeout.map(|t| Timespec {
        tv_sec: t.as_secs() as i64,
        tv_nsec: i64::from(t.subsec_nanos()),
    });
    match poll(&mut polls, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(polls.map(|poll| !poll.revents().is_empty())),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn borrow(eventfd: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the reference keeps it open.
    unsafe { BorrowedFd::borrow_raw(eventfd.as_raw_fd()) }
}
