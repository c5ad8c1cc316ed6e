//! What wakes a sleeping engine.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

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
