//! One call on an image that any thread can make: a system call, or a call of the qcow2 library.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::slice;

use libc::iovec;

use super::ranges;
use super::transfer::Transfer;
use crate::image::{Qcow2, Target};
use crate::operation::{Operation, Range};

/// The arguments of a transfer's next call, copied for another thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    target: RawTarget,
    operation: Operation,
    range: Range,
    iovecs: *const iovec,
    count: usize,
}

/// A [`Target`] without a lifetime. The caller of [`Job::run`] keeps the target alive.
#[derive(Clone, Copy, Debug)]
enum RawTarget {
    File(RawFd),
    Qcow2(*const Qcow2),
}

// SAFETY: the fields are plain values. Sending these values to another thread does not access the
// objects that the values name. The caller of `Job::run` promises that the fields name valid
// objects, and both kinds of target can be used from any thread.
unsafe impl Send for Job {}

impl Job {
    pub fn new(target: Target<'_>, transfer: &Transfer) -> Self {
        let iovecs = transfer.iovecs();
        Self {
            target: match target {
                Target::File(file) => RawTarget::File(file.as_raw_fd()),
                Target::Qcow2(qcow2) => RawTarget::Qcow2(qcow2),
            },
            operation: transfer.operation,
            range: transfer.rest(),
            iovecs: iovecs.as_ptr(),
            count: iovecs.len(),
        }
    }

    /// Makes the call. Returns the number of transferred bytes or a negated errno.
    ///
    /// # Safety
    ///
    /// The target must be open, and the list and its buffers must be valid memory. If the target is
    /// a file, other processes may write to the buffers at any time. If the target is a qcow2
    /// image, only this call may access the buffers.
    pub unsafe fn run(&self) -> i32 {
        let count = match self.target {
            // SAFETY: the caller promises an open file and valid buffers.
            RawTarget::File(file) => unsafe { self.make_system_call(file) },
            // SAFETY: the caller promises that the image is valid, and that the buffers are valid
            // and private.
            RawTarget::Qcow2(qcow2) => return unsafe { self.carry_out(&*qcow2) },
        };
        match count {
            -1 => negated_errno(),
            // The kernel moves less than 2 GiB in one call, so the number fits.
            count => i32::try_from(count).unwrap_or(i32::MAX),
        }
    }

    /// Makes a system call. Returns -1 with `errno` set on failure.
    ///
    /// # Safety
    ///
    /// The requirements of [`Job::run`] for a file.
    unsafe fn make_system_call(&self, file: RawFd) -> isize {
        // SAFETY: the caller promises that the file is open during this call.
        let borrowed = unsafe { BorrowedFd::borrow_raw(file) };
        if let Some(result) = ranges::system_call(borrowed, self.operation, self.range) {
            return result;
        }
        let (iovecs, count) = (self.iovecs, self.count as libc::c_int);
        let offset = self.range.offset as libc::off_t;
        // SAFETY: the caller promises that `iovecs` points to `count` valid entries, whose buffers
        // are valid memory. The kernel accesses nothing else.
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

    /// Carries the operation out in a qcow2 image.
    ///
    /// # Safety
    ///
    /// The requirements of [`Job::run`] for a qcow2 image.
    unsafe fn carry_out(&self, qcow2: &Qcow2) -> i32 {
        let buffer: &mut [u8] = match self.count {
            0 => &mut [],
            // SAFETY: `count` is not 0 here. The caller promises that the list has `count` valid
            // entries, and that the buffer of the first entry is valid and private for this call.
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

/// Makes the next system call of a transfer. Returns -1 with `errno` set on failure.
///
/// # Safety
///
/// The transfer's buffers must be valid memory. Other processes may write to this memory at any
/// time.
pub(super) unsafe fn system_call(file: BorrowedFd<'_>, transfer: &Transfer) -> isize {
    let job = Job::new(Target::File(file), transfer);
    // SAFETY: `file` is borrowed and so stays open, `transfer` owns the list, and the caller
    // promises that the buffers are valid.
    unsafe { job.make_system_call(file.as_raw_fd()) }
}

/// The errno of the calling thread's last failed call, negated. Results of io_uring have the same
/// form.
pub(super) fn negated_errno() -> i32 {
    -io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO)
}

/// The errno that is closest to an error of the qcow2 library.
fn errno(error: &io::Error) -> i32 {
    match (error.raw_os_error(), error.kind()) {
        // EAGAIN and EINTR become EIO, because a transfer repeats calls that fail with these
        // errors.
        (Some(errno), _) if errno > 0 && errno != libc::EAGAIN && errno != libc::EINTR => errno,
        (_, io::ErrorKind::Unsupported) => libc::EOPNOTSUPP,
        (_, io::ErrorKind::StorageFull) => libc::ENOSPC,
        _ => libc::EIO,
    }
}
