//! System calls made on the spot, where they have nothing to wait for.
//!
//! What is in the page cache is copied faster than handed to another thread, and a ring would do
//! just that with much of it.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::backend::negated_errno;
use super::calls::system_call;
use crate::transfer::{Operation, Transfer};

/// Copying so much takes several times as long as waking a thread up that does it.
const LARGE: u64 = 128 << 10;

/// How calls can be made that do not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Not at all.
    Never,
    /// By asking the kernel not to wait, for which it may refuse.
    NoWait,
    /// As any other.
    Plain,
}

/// Makes system calls that do not wait.
#[derive(Debug)]
pub(super) struct AtOnce {
    read: Mode,
    write: Mode,
}

impl AtOnce {
    /// Makes none.
    pub const NEVER: Self = Self {
        read: Mode::Never,
        write: Mode::Never,
    };

    /// Makes those that a file allows, which may be one in memory.
    pub fn new(in_memory: bool) -> Self {
        let mode = match in_memory {
            true => Mode::Plain,
            false => Mode::NoWait,
        };
        Self {
            read: mode,
            write: mode,
        }
    }

    /// Whether a read of so many bytes, with others behind it, had better be made by another thread,
    /// at the same time as those. Writes to one file are made one after the other anyway.
    pub fn is_better_aside(&self, len: u64) -> bool {
        len >= LARGE && self.read != Mode::Never
    }

    /// Makes the next system call of a transfer and returns its result: the number of bytes, or a
    /// negated errno. `None`: it has to be made by somebody who can wait.
    ///
    /// # Safety
    ///
    /// The buffers must be valid memory, shared with whoever may write to it.
    pub unsafe fn call(&mut self, file: BorrowedFd<'_>, transfer: &Transfer) -> Option<i32> {
        let mode = match transfer.operation {
            Operation::Read => &mut self.read,
            Operation::Write => &mut self.write,
            _ => return None,
        };
        let result = match *mode {
            Mode::Never => return None,
            // SAFETY: as the caller promises.
            Mode::Plain => unsafe { system_call(file, transfer) },
            // SAFETY: as the caller promises.
            Mode::NoWait => unsafe { no_wait(file, transfer) },
        };
        if result >= 0 {
            // The kernel moves less than 2 GiB in one call.
            return Some(i32::try_from(result).unwrap_or(i32::MAX));
        }
        let error = negated_errno();
        match *mode {
            Mode::Plain => return Some(error),
            // Files of this kind do not know the flag.
            _ if error == -libc::EOPNOTSUPP => *mode = Mode::Never,
            // It would wait; or it fails, which the next one will find out as well.
            _ => {}
        }
        None
    }
}

/// # Safety
///
/// The transfer's buffers must be valid memory, shared with whoever may write to it.
unsafe fn no_wait(file: BorrowedFd<'_>, transfer: &Transfer) -> isize {
    let file = file.as_raw_fd();
    let iovecs = transfer.iovecs().as_ptr();
    let count = transfer.iovecs().len() as libc::c_int;
    let offset = transfer.offset() as libc::off_t;
    let flags = libc::RWF_NOWAIT;
    // SAFETY: the list is valid, and so are its buffers by the caller's promise.
    unsafe {
        match transfer.operation {
            Operation::Read => libc::preadv2(file, iovecs, count, offset, flags),
            _ => libc::pwritev2(file, iovecs, count, offset, flags),
        }
    }
}
