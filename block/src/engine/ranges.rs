//! System calls that change a range of the image without moving data.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::ioctl::{self, RangeIoctl};
use crate::operation::{Operation, Range};

/// The `fallocate` mode of an operation, or `None` if the operation does not use `fallocate`. The
/// modes do not change the size of a file. Block devices support all modes except allocation.
pub(super) fn fallocate_mode(operation: Operation) -> Option<i32> {
    let mode = match operation {
        Operation::Unmap | Operation::Punch => libc::FALLOC_FL_PUNCH_HOLE,
        Operation::Zero => libc::FALLOC_FL_ZERO_RANGE,
        Operation::Allocate => 0,
        _ => return None,
    };
    Some(mode | libc::FALLOC_FL_KEEP_SIZE)
}

/// Whether an operation needs an ioctl. Before Linux 6.12, io_uring cannot make this ioctl.
pub(super) fn is_ioctl(operation: Operation) -> bool {
    ioctl_request(operation).is_some()
}

fn ioctl_request(operation: Operation) -> Option<RangeIoctl> {
    match operation {
        Operation::Discard => Some(RangeIoctl::Discard),
        Operation::SecureErase => Some(RangeIoctl::SecureErase),
        _ => None,
    }
}

/// Makes the system call of an operation that uses an ioctl or `fallocate`. Returns the result of
/// the call, which is -1 with `errno` set on failure. Returns `None` for other operations.
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
    // SAFETY: fallocate takes no pointers, so it accesses no memory of this process.
    Some(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset as i64, len as i64) as isize })
}
