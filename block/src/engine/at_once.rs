//! Makes system calls on the queue's own thread, if the calls do not have to wait.
//!
//! Copying data that is in the page cache costs less time than handing the call to another thread.
//! An io_uring would hand many of these calls to kernel threads.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::job::{negated_errno, system_call};
use super::transfer::Transfer;
use crate::operation::Operation;

/// The smallest size in bytes for which copying the data costs several times as much as waking
/// another thread.
const LARGE: u64 = 128 << 10;

/// The system calls that the queue's own thread makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// No calls. Another thread or io_uring makes all calls.
    Never,
    /// Calls with RWF_NOWAIT. The kernel refuses such a call if the call would wait.
    NoWait,
    /// Ordinary calls. The file is in memory, so calls never wait.
    Plain,
}

/// Makes system calls that do not wait.
#[derive(Debug)]
pub(super) struct AtOnce {
    read: Mode,
    write: Mode,
}

impl AtOnce {
    /// A value that makes no calls.
    pub const NEVER: Self = Self {
        read: Mode::Never,
        write: Mode::Never,
    };

    /// Chooses the kind of calls. `in_memory` says whether the file is in memory, where calls never
    /// wait.
    pub fn new(in_memory: bool) -> Self {
        let mode = if in_memory { Mode::Plain } else { Mode::NoWait };
        Self {
            read: mode,
            write: mode,
        }
    }

    /// Whether a read of `len` bytes should run on another thread, so that the queue's own thread
    /// can serve the next requests at the same time. For writes a second thread has no advantage,
    /// because the kernel carries out the writes to one file one after the other.
    pub fn is_better_aside(&self, len: u64) -> bool {
        len >= LARGE && self.read != Mode::Never
    }

    /// Makes the next system call of a transfer. Returns the number of transferred bytes or a
    /// negated errno. Returns `None` if the call would wait.
    ///
    /// # Safety
    ///
    /// The buffers must be valid memory. Other processes may write to this memory at any time.
    pub unsafe fn try_call(&mut self, file: BorrowedFd<'_>, transfer: &Transfer) -> Option<i32> {
        let mode = match transfer.operation {
            Operation::Read => &mut self.read,
            Operation::Write => &mut self.write,
            _ => return None,
        };
        let result = match *mode {
            Mode::Never => return None,
            // SAFETY: the caller promises that the buffers are valid memory.
            Mode::Plain => unsafe { system_call(file, transfer) },
            // SAFETY: the caller promises that the buffers are valid memory.
            Mode::NoWait => unsafe { no_wait(file, transfer) },
        };
        if result >= 0 {
            // The kernel moves less than 2 GiB in one call, so the number fits.
            return Some(i32::try_from(result).unwrap_or(i32::MAX));
        }
        let error = negated_errno();
        match *mode {
            Mode::Plain => return Some(error),
            // The file does not support RWF_NOWAIT.
            _ if error == -libc::EOPNOTSUPP => *mode = Mode::Never,
            // The call would wait, or it failed. The engine then repeats the call without
            // RWF_NOWAIT, and reports the result of the second call.
            _ => {}
        }
        None
    }
}

/// Makes the next system call of a transfer unless the call would wait. Returns -1 with `errno` set
/// on failure.
///
/// # Safety
///
/// The transfer's buffers must be valid memory. Other processes may write to this memory at any
/// time.
unsafe fn no_wait(file: BorrowedFd<'_>, transfer: &Transfer) -> isize {
    let file = file.as_raw_fd();
    let iovecs = transfer.iovecs().as_ptr();
    let count = transfer.iovecs().len() as libc::c_int;
    let offset = transfer.offset() as libc::off_t;
    let flags = libc::RWF_NOWAIT;
    // SAFETY: `iovecs` points to `count` entries of a list that `transfer` owns. The caller
    // promises that the buffers of these entries are valid. The kernel accesses nothing else.
    unsafe {
        match transfer.operation {
            Operation::Read => libc::preadv2(file, iovecs, count, offset, flags),
            _ => libc::pwritev2(file, iovecs, count, offset, flags),
        }
    }
}
