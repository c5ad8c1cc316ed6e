//! Single calls, as any thread can make them: to the system, or to who knows an image's format.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::slice;

use libc::iovec;

use super::backend::negated_errno;
use super::ranges;
use crate::image::{Qcow2, Target};
use crate::request::Range;
use crate::transfer::{Operation, Transfer};

/// The next call of a transfer, apart from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    place: Place,
    operation: Operation,
    range: Range,
    iovecs: *const iovec,
    count: usize,
}

/// A [`Target`] whose life is somebody else's concern.
#[derive(Clone, Copy, Debug)]
enum Place {
    File(RawFd),
    Qcow2(*const Qcow2),
}

// SAFETY: it is but numbers and addresses; whoever makes the call vouches for what they stand for.
unsafe impl Send for Call {}

impl Call {
    pub fn new(target: Target<'_>, transfer: &Transfer) -> Self {
        let iovecs = transfer.iovecs();
        Self {
            place: match target {
                Target::File(file) => Place::File(file.as_raw_fd()),
                Target::Qcow2(qcow2) => Place::Qcow2(qcow2),
            },
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
    /// The target has to be open, and the list and its buffers have to be valid memory. That is shared
    /// with whoever may write to it if the target is a file, else with nobody.
    pub unsafe fn result(&self) -> i32 {
        let count = match self.place {
            // SAFETY: as the caller promises.
            Place::File(file) => unsafe { self.make(file) },
            // SAFETY: as the caller promises.
            Place::Qcow2(qcow2) => return unsafe { self.carry_out(&*qcow2) },
        };
        match count {
            -1 => negated_errno(),
            // The kernel moves less than 2 GiB in one call.
            count => i32::try_from(count).unwrap_or(i32::MAX),
        }
    }

    /// Makes a system call; -1 with `errno` set for a failure.
    ///
    /// # Safety
    ///
    /// As for [`Call::result`].
    unsafe fn make(&self, file: RawFd) -> isize {
        // SAFETY: as the caller promises.
        let borrowed = unsafe { BorrowedFd::borrow_raw(file) };
        if let Some(result) = ranges::system_call(borrowed, self.operation, self.range) {
            return result;
        }
        let (iovecs, count) = (self.iovecs, self.count as libc::c_int);
        let offset = self.range.offset as libc::off_t;
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

    /// Carries the operation out in an image with a format.
    ///
    /// # Safety
    ///
    /// As for [`Call::result`].
    unsafe fn carry_out(&self, qcow2: &Qcow2) -> i32 {
        let buffer: &mut [u8] = match self.count {
            0 => &mut [],
            // SAFETY: the list is valid, and so is its first buffer, which nobody else has.
            _ => unsafe {
                let iovec { iov_base, iov_len } = *self.iovecs;
                slice::from_raw_parts_mut(iov_base.cast(), iov_len)
            },
        };
        match qcow2.carry_out(self.operation, self.range, buffer) {
            Ok(count) => i32::try_from(count).unwrap_or(i32::MAX),
            Err(error) => -errno(&error),
        }
    }
}

/// Makes the next system call of a transfer; -1 with `errno` set for a failure.
///
/// # Safety
///
/// The transfer's buffers must be valid memory, shared with whoever may write to it.
pub(super) unsafe fn system_call(file: BorrowedFd<'_>, transfer: &Transfer) -> isize {
    let call = Call::new(Target::File(file), transfer);
    // SAFETY: the file is open, the list is valid, and so are its buffers by the caller's promise.
    unsafe { call.make(file.as_raw_fd()) }
}

/// What is closest to an error that need not be the system's.
fn errno(error: &io::Error) -> i32 {
    match (error.raw_os_error(), error.kind()) {
        // A call that would be repeated is none of those that came from the system.
        (Some(errno), _) if errno > 0 && errno != libc::EAGAIN && errno != libc::EINTR => errno,
        (_, io::ErrorKind::Unsupported) => libc::EOPNOTSUPP,
        (_, io::ErrorKind::StorageFull) => libc::ENOSPC,
        _ => libc::EIO,
    }
}
