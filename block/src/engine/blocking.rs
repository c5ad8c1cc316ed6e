//! Blocking system calls, one at a time: where io_uring is not to be had.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use vmm_sys_util::eventfd::EventFd;

use super::backend::negated_errno;
use super::ranges;
use super::wakers::{POLL_INTERVAL, Wakers, reset};
use crate::transfer::{Operation, Transfer};

/// Makes each system call at once and keeps its result until it is asked for.
pub(super) struct Blocking {
    wakers: Wakers,
    results: VecDeque<(u16, i32)>,
}

impl Blocking {
    pub fn new(wakers: Wakers) -> Self {
        Self {
            wakers,
            results: VecDeque::new(),
        }
    }

    /// Makes the next system call of `transfer`.
    ///
    /// # Safety
    ///
    /// Its buffers must be valid memory, shared with whoever may write to it.
    pub unsafe fn call(&mut self, slot: u16, file: BorrowedFd<'_>, transfer: &Transfer) {
        // SAFETY: as the caller promises.
        let result = unsafe { system_call(file, transfer) };
        let result = match result {
            -1 => negated_errno(),
            // The kernel moves less than 2 GiB in one call.
            count => i32::try_from(count).unwrap_or(i32::MAX),
        };
        self.results.push_back((slot, result));
    }

    pub fn next_result(&mut self) -> Option<(u16, i32)> {
        self.results.pop_front()
    }

    /// Sleeps until the kick or stop eventfd is written, or for this time, or the polling interval;
    /// not at all when there are results.
    pub fn wait(&mut self, time: Option<Duration>) -> io::Result<()> {
        if !self.results.is_empty() {
            return Ok(());
        }
        let Some(kick) = self.wakers.kick.clone() else {
            let time = time.map_or(POLL_INTERVAL, |time| time.min(POLL_INTERVAL));
            poll_readable(&[&self.wakers.stop], Some(time))?;
            return Ok(());
        };
        let ready = poll_readable(&[&self.wakers.stop, &kick], time)?;
        // SAFETY: `kick` is open as long as the `Arc` lives.
        let fd = unsafe { BorrowedFd::borrow_raw(kick.as_raw_fd()) };
        if ready[1] && reset(fd).is_err() {
            tracing::warn!("the kick is no eventfd: polling the ring instead");
            self.wakers.kick = None;
        }
        Ok(())
    }
}

/// Makes the next system call of a transfer; -1 with `errno` set for a failure.
///
/// # Safety
///
/// The transfer's buffers must be valid memory, shared with whoever may write to it.
pub(super) unsafe fn system_call(file: BorrowedFd<'_>, transfer: &Transfer) -> isize {
    if let Some(result) = ranges::system_call(file, transfer) {
        return result;
    }
    let file = file.as_raw_fd();
    let iovecs = transfer.iovecs().as_ptr();
    let count = transfer.iovecs().len() as libc::c_int;
    let offset = transfer.offset() as libc::off_t;
    // SAFETY: the list is valid, and so are its buffers by the caller's promise.
    unsafe {
        match transfer.operation {
            Operation::Read => libc::preadv(file, iovecs, count, offset),
            Operation::Write => libc::pwritev(file, iovecs, count, offset),
            Operation::WriteStable => libc::pwritev2(file, iovecs, count, offset, libc::RWF_DSYNC),
            _ => libc::fdatasync(file) as isize,
        }
    }
}

/// Waits for any of `N` eventfds and says which can be read.
fn poll_readable<const N: usize>(
    eventfds: &[&EventFd; N],
    timeout: Option<Duration>,
) -> io::Result<[bool; N]> {
    // SAFETY: the references keep the eventfds open.
    let borrow = |eventfd: &&EventFd| unsafe { BorrowedFd::borrow_raw(eventfd.as_raw_fd()) };
    let files = eventfds.each_ref().map(borrow);
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
