//! System calls that change a range of the image without moving data.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::ioctl;
use crate::request::Range;
use crate::transfer::Operation;

/// `fallocate` modes; none of them changes a file's size. Block devices know them, too, except
/// that they cannot allocate.
pub(super) fn fallocate_mode(operation: Operation) -> Option<i32> {
    let mode = match operation {
        Operation::Unmap | Operation::Punch => libc::FALLOC_FL_PUNCH_HOLE,
        Operation::Zero => libc::FALLOC_FL_ZERO_RANGE,
        Operation::Allocate => 0,
        _ => return None,
    };
    Some(mode | libc::FALLOC_FL_KEEP_SIZE)
}

/// True for an operation that needs an ioctl. No io_uring of Linux before 6.12 takes those.
pub(super) fn is_ioctl(operation: Operation) -> bool {
    ioctl_request(operation).is_some()
}

fn ioctl_request(operation: Operation) -> Option<ioctl::Request> {
    match operation {
        Operation::Discard => Some(ioctl::Request::Discard),
        Operation::SecureErase => Some(ioctl::Request::SecureErase),
        _ => None,
    }
}

/// Makes the system call of an operation without buffers, if it is one of this module; the answer
/// is the call's, -1 with `errno` set for a failure.
pub(super) fn system_call(
    file: BorrowedFd<'_>,
    operation: Operation,
    range: Range,
) -> Option<isize> {
    let Range { offset, len } = range;
    if let Some(request) = ioctl_request(operation) {
        return Some(ioctl::change(file, request, offset, len));
    }
    let mode = fallocate_mode(operation)?;
    // SAFETY: the call takes no pointers.
    Some(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset as i64, len as i64) as isize })
}
