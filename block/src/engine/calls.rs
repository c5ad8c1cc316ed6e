//! Single system calls, as any thread can make them.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use libc::iovec;

use super::backend::negated_errno;
use super::ranges;
use crate::request::Range;
use crate::transfer::{Operation, Transfer};

/// The next system call of a transfer, apart from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    file: RawFd,
    operation: Operation,
    range: Range,
    iovecs: *const iovec,
    count: usize,
}

// SAFETY: it is but numbers and addresses; whoever makes the call vouches for what they stand for.
unsafe impl Send for Call {}

impl Call {
    pub fn new(file: BorrowedFd<'_>, transfer: &Transfer) -> Self {
        let iovecs = transfer.iovecs();
        Self {
            file: file.as_raw_fd(),
            operation: transfer.operation,
            range: transfer.rest(),
            iovecs: iovecs.as_ptr(),
            count: iovecs.len(),
        }
    }

    /// Makes it, and returns the number of bytes or a negated errno.
    ///
    /// # Safety
    ///
    /// The file has to be open, and the list and its buffers have to be valid memory, which is shared
    /// with whoever may write to it.
    pub unsafe fn result(&self) -> i32 {
        // SAFETY: as the caller promises.
        match unsafe { self.make() } {
            -1 => negated_errno(),
            // The kernel moves less than 2 GiB in one call.
            count => i32::try_from(count).unwrap_or(i32::MAX),
        }
    }

    /// Makes it; -1 with `errno` set for a failure.
    ///
    /// # Safety
    ///
    /// As for [`Call::result`].
    pub unsafe fn make(&self) -> isize {
        // SAFETY: as the caller promises.
        let file = unsafe { BorrowedFd::borrow_raw(self.file) };
        if let Some(result) = ranges::system_call(file, self.operation, self.range) {
            return result;
        }
        let (iovecs, count) = (self.iovecs, self.count as libc::c_int);
        let offset = self.range.offset as libc::off_t;
        let file = self.file;
        // SAFETY: as the caller promises.
        unsafe {
            match self.operation {
                Operation::Read => libc::preadv(file, iovecs, count, offset),
                Operation::Write => libc::pwritev(file, iovecs, count, offset),
                Operation::WriteStable => {
                    libc::pwritev2(file, iovecs, count, offset, libc::RWF_DSYNC)
                }
                _ => libc::fdatasync(file) as isize,
            }
        }
    }
}
